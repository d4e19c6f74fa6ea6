// Optimizer steps in place, clipping and the moving average of a teacher; the contract is that of mod.rs. Nothing waits
// for the host: optimizer_begin turns the norm of the gradients into the factor of the step, on the device, and a norm
// that is not finite makes every update of the step do nothing.
#include "device.cuh"

/// What optimizer_begin leaves for the updates: 1 to go on or 0, factor of the gradients, and for AdamW the size of the
/// step and sqrt(1 - beta2^step).
struct Step {
    float go, factor, size, correction;
};

/// Sum of squares of one stretch per block, in f64: partial `[blocks]`, block b has values b * stretch to (b + 1) * stretch.
BUDGET(optimizer_squares, 40, 2048);
extern "C" __global__ void __launch_bounds__(256)
optimizer_squares(const float* x, long long n, int stretch, double* partial) {
    SHARED(double, sums);  // [256]
    const long long first = (long long)blockIdx.x * stretch, last = first + stretch < n ? first + stretch : n;
    double sum = 0.0;
    for (long long i = first + threadIdx.x; i < last; i += 256) sum += (double)x[i] * x[i];
    sums[threadIdx.x] = sum;
    for (unsigned half = 128; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

/// Norm over all stretches of all tensors, in order. One thread of one block works.
BUDGET(optimizer_norm, 64, 0);
extern "C" __global__ void __launch_bounds__(32) optimizer_norm(const double* partial, int count, float* norm) {
    if (threadIdx.x) return;
    double sum = 0.0;
    for (int i = 0; i < count; i++) sum += partial[i];
    norm[0] = (float)sqrt(sum);
}

/// Clips to `clip` as torch.nn.utils.clip_grad_norm_. steps: tensor that counts the steps of AdamW, or null. One thread.
BUDGET(optimizer_begin, 128, 0);
extern "C" __global__ void __launch_bounds__(32)
optimizer_begin(const float* norm, float clip, float* steps, double lr, double beta1, double beta2, Step* step) {
    if (threadIdx.x) return;
    const double ratio = clip / (norm[0] + 1e-6);
    step->go = norm[0] - norm[0] == 0.0f ? 1.0f : 0.0f;
    step->factor = (float)(ratio < 1.0 ? ratio : 1.0);
    step->size = step->correction = 0.0f;
    if (!steps || step->go == 0.0f) return;
    const double count = steps[0] += 1.0f;
    step->size = (float)(lr / (1.0 - pow(beta1, count)));
    step->correction = (float)sqrt(1.0 - pow(beta2, count));
}

/// torch.optim.SGD, dampening 0. Any grid of 256 threads, as all below.
BUDGET(optimizer_sgd, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
optimizer_sgd(const Step* step, float lr, float momentum, int nesterov, float weight_decay, long long n,
              const float* gradient, float* parameter, float* state) {
    if (step->go == 0.0f) return;
    const float factor = step->factor;
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        const float g = gradient[i] * factor + weight_decay * parameter[i], m = momentum * state[i] + g;
        state[i] = m;
        parameter[i] -= lr * (nesterov ? g + momentum * m : m);
    }
}

/// torch.optim.AdamW; largest: state of amsgrad, or null. keep, take: beta and 1 - beta; decay: 1 - lr * weight decay.
BUDGET(optimizer_adamw, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
optimizer_adamw(const Step* step, float keep1, float take1, float keep2, float take2, float decay, float eps, long long n,
                const float* gradient, float* parameter, float* first, float* second, float* largest) {
    if (step->go == 0.0f) return;
    const float factor = step->factor, size = step->size, correction = step->correction;
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        const float g = gradient[i] * factor, m = keep1 * first[i] + take1 * g;
        float v = keep2 * second[i] + take2 * g * g;
        first[i] = m;
        second[i] = v;
        if (largest) largest[i] = v = fmaxf(largest[i], v);
        parameter[i] = parameter[i] * decay - size * m / (sqrtf(v) / correction + eps);
    }
}

/// teacher = keep * teacher + take * student.
BUDGET(optimizer_ema, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
optimizer_ema(float keep, float take, long long n, const float* student, float* teacher) {
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        teacher[i] = keep * teacher[i] + take * student[i];
    }
}

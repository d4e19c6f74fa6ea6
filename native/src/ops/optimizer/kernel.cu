// Optimizer steps of ops/optimizer: all tensors of a network in one launch; all state stays on the card.
#include "device.cuh"

/// What optimizer_begin leaves for the updates of AdamW: size of the step and sqrt(1 - beta2^step).
struct Step {
    float size, correction;
};

/// One tensor of a launch. first, second, largest: its state, as far as the rule has it; steps: counts those of AdamW.
/// teacher: what follows the parameter, or null. chunk: number of its first block; each block has CHUNK values.
struct Part {
    const float* gradient;
    float *parameter, *first, *second, *largest, *steps, *teacher;
    long long values;
    int chunk;
};
constexpr int CHUNK = 16384;

/// The tensor that a block works on: the last one that begins with this block or before it.
__device__ inline int part_of(const Part* parts, int count, int block) {
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (parts[middle].chunk <= block) low = middle;
        else high = middle;
    }
    return low;
}

/// Calls f with each value of this block.
template <class F> __device__ inline void each_value(const Part& part, F f) {
    const long long first = (long long)(blockIdx.x - part.chunk) * CHUNK;
    const long long last = first + CHUNK < part.values ? first + CHUNK : part.values;
    for (long long i = first + threadIdx.x; i < last; i += 256) f(i);
}

/// Teacher = keep * teacher + take * student; keep 0 copies.
__device__ inline void follow(float* teacher, float student, float keep, float take) {
    *teacher = keep == 0.0f ? student : keep * *teacher + take * student;
}

/// Sum of what the 256 threads hold, in a fixed order, for thread 0.
__device__ inline double sum_of_threads(double sum) {
    SHARED(double, sums);  // [256]
    sums[threadIdx.x] = sum;
    for (unsigned half = 128; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    return sums[0];
}

/// partial `[blocks]`: sum of squares of the gradients of a block, in f64.
BUDGET(optimizer_squares, 40, 2048);
extern "C" __global__ void __launch_bounds__(256) optimizer_squares(const Part* parts, int count, double* partial) {
    const Part& part = parts[part_of(parts, count, blockIdx.x)];
    double sum = 0.0;
    each_value(part, [&](long long i) { sum += (double)part.gradient[i] * part.gradient[i]; });
    sum = sum_of_threads(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// Norm over all partial sums. One block.
BUDGET(optimizer_norm, 64, 2048);
extern "C" __global__ void __launch_bounds__(256) optimizer_norm(const double* partial, int count, float* norm) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += 256) sum += partial[i];
    sum = sum_of_threads(sum);
    if (threadIdx.x == 0) norm[0] = (float)sqrt(sum);
}

/// Whether the norm is finite; if not, nothing changes.
__device__ inline bool finite(float norm) { return norm - norm == 0.0f; }

/// Factor of the gradients: clips to `clip` as torch.nn.utils.clip_grad_norm_.
__device__ inline float factor_of(float norm, float clip) {
    const double ratio = clip / (norm + 1e-6);
    return (float)(ratio < 1.0 ? ratio : 1.0);
}

/// Counts a step of AdamW for each tensor. One thread per tensor.
BUDGET(optimizer_begin, 128, 0);
extern "C" __global__ void __launch_bounds__(256)
optimizer_begin(const float* norm, const Part* parts, int count, double lr, double beta1, double beta2, Step* steps) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count || !finite(norm[0])) return;
    const double step = parts[i].steps[0] += 1.0f;
    steps[i].size = (float)(lr / (1.0 - pow(beta1, step)));
    steps[i].correction = (float)sqrt(1.0 - pow(beta2, step));
}

/// torch.optim.SGD, dampening 0; first: the momentum.
BUDGET(optimizer_sgd, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
optimizer_sgd(const float* norm, float clip, const Part* parts, int count, float lr, float momentum, int nesterov,
              float weight_decay, float keep, float take) {
    if (!finite(norm[0])) return;
    const Part part = parts[part_of(parts, count, blockIdx.x)];
    const float factor = factor_of(norm[0], clip);
    each_value(part, [&](long long i) {
        const float g = part.gradient[i] * factor + weight_decay * part.parameter[i], m = momentum * part.first[i] + g;
        part.first[i] = m;
        const float p = part.parameter[i] -= lr * (nesterov ? g + momentum * m : m);
        if (part.teacher) follow(part.teacher + i, p, keep, take);
    });
}

/// torch.optim.AdamW; largest: state of amsgrad, or null. keep, take: beta and 1 - beta; decay: 1 - lr * weight decay.
BUDGET(optimizer_adamw, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
optimizer_adamw(const float* norm, float clip, const Part* parts, int count, const Step* steps, float keep1, float take1,
                float keep2, float take2, float decay, float eps, float keep, float take) {
    if (!finite(norm[0])) return;
    const int at = part_of(parts, count, blockIdx.x);
    const Part part = parts[at];
    const float factor = factor_of(norm[0], clip), size = steps[at].size, correction = steps[at].correction;
    each_value(part, [&](long long i) {
        const float g = part.gradient[i] * factor, m = keep1 * part.first[i] + take1 * g;
        float v = keep2 * part.second[i] + take2 * g * g;
        part.first[i] = m;
        part.second[i] = v;
        if (part.largest) part.largest[i] = v = fmaxf(part.largest[i], v);
        const float p = part.parameter[i] = part.parameter[i] * decay - size * m / (sqrtf(v) / correction + eps);
        if (part.teacher) follow(part.teacher + i, p, keep, take);
    });
}

/// The teachers alone, of students that stand as `gradient`.
BUDGET(optimizer_ema, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
optimizer_ema(const Part* parts, int count, float keep, float take) {
    const Part part = parts[part_of(parts, count, blockIdx.x)];
    each_value(part, [&](long long i) { follow(part.teacher + i, part.gradient[i], keep, take); });
}

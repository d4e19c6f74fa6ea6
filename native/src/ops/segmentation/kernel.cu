// Soft Dice plus cross entropy, its gradient, and softmax; the contract is that of mod.rs, f32. Sums run over slices of
// voxels, and the slices are added in order in f64, so two runs give the same bits.
#include "device.cuh"

struct Segmentation {
    int samples, voxels, classes;
    int batch_dice;  // Dice over the voxels of all samples
    int slice;       // voxels whose sums one block makes
    float dice;      // weight of the Dice term
};

constexpr double SMOOTH = 1e-5;

/// log of the sum of exp(z) over the classes.
__device__ inline float log_sum(const float* z, int classes) {
    float top = z[0], sum = 0.0f;
    for (int c = 1; c < classes; c++) top = fmaxf(top, z[c]);
    for (int c = 0; c < classes; c++) sum += expf(z[c] - top);
    return top + logf(sum);
}

/// l `[rows]`. Any grid of 256 threads.
BUDGET(segmentation_logs, 40, 0);
extern "C" __global__ void __launch_bounds__(256) segmentation_logs(const float* z, long long rows, int classes, float* l) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < rows; i += gridDim.x * 256LL) l[i] = log_sum(z + i * classes, classes);
}

/// partial `[samples][slices][classes][4]`: sums of p where the label is the class, of p, of labels, and of -log p of the
/// label. Grid (slices, classes / 32, samples), 256 threads: `lanes` neighbours, a power of two, are the classes of one
/// voxel.
BUDGET(segmentation_sums, 48, 4096);
extern "C" __global__ void __launch_bounds__(256)
segmentation_sums(const Segmentation s, int lanes, const float* z, const float* labels, const float* l, float* partial) {
    SHARED(float, sums);  // [256][4]
    const int c = blockIdx.y * 32 + threadIdx.x % lanes, first = blockIdx.x * s.slice;
    const int last = first + s.slice < s.voxels ? first + s.slice : s.voxels;
    float both = 0.0f, shares = 0.0f, hits = 0.0f, entropy = 0.0f;
    if (c < s.classes) {
        for (int v = first + threadIdx.x / lanes; v < last; v += 256 / lanes) {
            const long long row = (long long)blockIdx.z * s.voxels + v;
            const float log = z[row * s.classes + c] - l[row], p = expf(log);
            const bool hit = (int)labels[row] == c;
            shares += p;
            both += hit ? p : 0.0f;
            hits += hit ? 1.0f : 0.0f;
            entropy -= hit ? log : 0.0f;
        }
    }
    float* const own = sums + 4 * threadIdx.x;
    own[0] = both, own[1] = shares, own[2] = hits, own[3] = entropy;
    __syncthreads();
    if ((int)threadIdx.x >= 4 * lanes) return;
    const int k = blockIdx.y * 32 + threadIdx.x / 4;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < 4 * 256; i += 4 * lanes) sum += sums[i];
    if (k < s.classes) {
        const long long part = (long long)blockIdx.z * gridDim.x + blockIdx.x;
        partial[(part * s.classes + k) * 4 + threadIdx.x % 4] = sum;
    }
}

/// Per group (sample, or the batch) and class: slopes `[groups][classes][2]` of minus the mean Dice by p, everywhere and
/// more where the label is the class; parts `[groups * classes][2]` of Dice and entropy; the loss. One block of 256 threads.
BUDGET(segmentation_fold, 64, 0);
extern "C" __global__ void __launch_bounds__(256)
segmentation_fold(const Segmentation s, int slices, const float* partial, double* parts, float* slopes, float* loss) {
    const int groups = s.batch_dice ? 1 : s.samples, each = slices * (s.samples / groups);
    const double share = s.dice / ((double)groups * (s.classes - 1));
    for (int i = threadIdx.x; i < groups * s.classes; i += 256) {
        const int group = i / s.classes, c = i % s.classes;
        double sums[4] = {0.0, 0.0, 0.0, 0.0};
        for (int k = 0; k < each; k++) {
            const float* const from = partial + (((long long)group * each + k) * s.classes + c) * 4;
#pragma unroll
            for (int n = 0; n < 4; n++) sums[n] += from[n];
        }
        const double a = 2.0 * sums[0] + SMOOTH, b = sums[1] + sums[2] + SMOOTH;
        parts[2 * i] = c ? a / b * share : 0.0;
        parts[2 * i + 1] = sums[3];
        slopes[2 * i] = c ? (float)(share * a / (b * b)) : 0.0f;
        slopes[2 * i + 1] = c ? (float)(-2.0 * share / b) : 0.0f;
    }
    __syncthreads();
    if (threadIdx.x || !loss) return;
    double dice = 0.0, entropy = 0.0;
    for (int i = 0; i < groups * s.classes; i++) dice += parts[2 * i], entropy += parts[2 * i + 1];
    loss[0] = (float)(entropy / ((double)s.samples * s.voxels) - dice);
}

/// dz from the gradient of the loss. Any grid of 256 threads.
BUDGET(segmentation_grad, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
segmentation_grad(const Segmentation s, const float* dloss, const float* z, const float* labels, const float* l,
                  const float* slopes, float* dz) {
    const long long rows = (long long)s.samples * s.voxels;
    const float share = 1.0f / (float)rows, factor = dloss[0];
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < rows; i += gridDim.x * 256LL) {
        const float* const own = z + i * s.classes;
        const float* const slope = slopes + (s.batch_dice ? 0 : i / s.voxels * s.classes * 2);
        const int label = (int)labels[i];
        const float log = l[i];
        float along = 0.0f;
        for (int c = 0; c < s.classes; c++) along += expf(own[c] - log) * (slope[2 * c] + (c == label ? slope[2 * c + 1] : 0.0f));
        for (int c = 0; c < s.classes; c++) {
            const float p = expf(own[c] - log), hit = c == label ? 1.0f : 0.0f;
            dz[i * s.classes + c] = factor * (p * (slope[2 * c] + hit * slope[2 * c + 1] - along) + share * (p - hit));
        }
    }
}

/// Softmax of each row. Any grid of 256 threads.
BUDGET(segmentation_softmax, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
segmentation_softmax(const float* x, long long rows, int classes, float* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < rows; i += gridDim.x * 256LL) {
        const float log = log_sum(x + i * classes, classes);
        for (int c = 0; c < classes; c++) y[i * classes + c] = expf(x[i * classes + c] - log);
    }
}

// Sub-lattices of volumes and their gradient; the contract is that of mod.rs, f32 or bf16.
#include "device.cuh"

struct Lattice {
    int rows;     // (block, z, y) of the coarse tensor
    int side[3];  // of a coarse block
    int c, count;
    int inner;
};

/// Channel of the coarse tensor for channel i at the k-th offset.
__device__ inline int channel_of(const Lattice& s, int k, int i) { return s.inner ? i * s.count + k : k * s.c + i; }

/// y. Any grid of 256 threads, as for the gradient.
template <class E>
__device__ inline void sampled(const Lattice& s, const int* offsets, const E* x, E* y) {
    const int width = s.c * s.count;
    const long long count = (long long)s.rows * s.side[2] * width;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const int channel = (int)(i % width), at = (int)(i / width % s.side[2]);
        const int row = (int)(i / width / s.side[2]), plane = row / s.side[1], y0 = row % s.side[1];
        const int offset = offsets[s.inner ? channel % s.count : channel / s.c];
        const long long line = (2LL * plane + (offset >> 2)) * 2 * s.side[1] + 2 * y0 + (offset >> 1 & 1);
        const long long voxel = line * 2 * s.side[2] + 2 * at + (offset & 1);
        y[i] = x[voxel * s.c + (s.inner ? channel / s.count : channel % s.c)];
    }
}

/// dx: the sum of what was read, in the order of the offsets.
template <class E>
__device__ inline void sampled_back(const Lattice& s, const int* offsets, const E* dy, E* dx) {
    const long long count = 8LL * s.rows * s.side[2] * s.c;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const int channel = (int)(i % s.c), at = (int)(i / s.c % (2 * s.side[2]));
        const long long line = i / s.c / (2 * s.side[2]);
        const long long plane = line / (2 * s.side[1]);
        const int y0 = (int)(line % (2 * s.side[1]));
        const int here = 4 * (int)(plane & 1) + 2 * (y0 & 1) + (at & 1);
        const long long row = plane / 2 * s.side[1] + y0 / 2;
        const E* const from = dy + (row * s.side[2] + at / 2) * s.c * s.count;
        float sum = 0.0f;
        for (int k = 0; k < s.count; k++) {
            if (offsets[k] == here) sum += number(from[channel_of(s, k, channel)]);
        }
        store(dx + i, sum);
    }
}

BUDGET(lattice, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
lattice(const Lattice s, const int* offsets, const bf16* x, bf16* y) {
    sampled(s, offsets, x, y);
}

BUDGET(lattice_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
lattice_f32(const Lattice s, const int* offsets, const float* x, float* y) {
    sampled(s, offsets, x, y);
}

BUDGET(lattice_grad, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
lattice_grad(const Lattice s, const int* offsets, const bf16* dy, bf16* dx) {
    sampled_back(s, offsets, dy, dx);
}

BUDGET(lattice_grad_f32, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
lattice_grad_f32(const Lattice s, const int* offsets, const float* dy, float* dx) {
    sampled_back(s, offsets, dy, dx);
}

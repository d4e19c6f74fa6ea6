// Maximum of 2x2x2 cubes and its gradient; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// planes: block * z of the coarse volume.
struct Pool {
    int planes, side[2], c;
};

__device__ inline long long coarse_values(const Pool& p) { return (long long)p.planes * p.side[0] * p.side[1] * p.c; }

/// Fine value k of the eight of a coarse one, in the order z, y, x.
__device__ inline long long fine(const Pool& p, long long value, int k) {
    const long long voxel = value / p.c, line = voxel / p.side[1], plane = line / p.side[0];
    const long long z = plane * 2 + (k >> 2), y = line % p.side[0] * 2 + (k >> 1 & 1), x = voxel % p.side[1] * 2 + (k & 1);
    return ((z * p.side[0] * 2 + y) * p.side[1] * 2 + x) * p.c + value % p.c;
}

template <class E> __device__ inline void largest(const Pool& p, const E* x, E* y) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < coarse_values(p); i += gridDim.x * 256LL) {
        float most = number(x[fine(p, i, 0)]);
        for (int k = 1; k < 8; k++) {
            const float v = number(x[fine(p, i, k)]);
            if (v > most || v != v) most = v;
        }
        store(y + i, most);
    }
}

/// dy at the first of the largest values.
template <class E> __device__ inline void largest_back(const Pool& p, const E* dy, const E* x, const E* y, E* dx) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < coarse_values(p); i += gridDim.x * 256LL) {
        bool found = false;
        for (int k = 0; k < 8; k++) {
            const long long at = fine(p, i, k);
            const bool hit = !found && number(x[at]) == number(y[i]);
            dx[at] = hit ? dy[i] : (E)0;
            found = found || hit;
        }
    }
}

BUDGET(max_pool, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
max_pool(const Pool p, const bf16* x, bf16* y) {
    largest(p, x, y);
}

BUDGET(max_pool_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
max_pool_f32(const Pool p, const float* x, float* y) {
    largest(p, x, y);
}

BUDGET(max_pool_grad, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
max_pool_grad(const Pool p, const bf16* dy, const bf16* x, const bf16* y, bf16* dx) {
    largest_back(p, dy, x, y, dx);
}

BUDGET(max_pool_grad_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
max_pool_grad_f32(const Pool p, const float* dy, const float* x, const float* y, float* dx) {
    largest_back(p, dy, x, y, dx);
}

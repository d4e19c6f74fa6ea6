// Values filled, converted, added and scaled; the contract is that of mod.rs. Any grid of 256 threads.
#include "device.cuh"

/// y = factor * u + add * v, each rounded once; v may be null.
template <class E> __device__ inline void combined(float factor, const E* u, float add, const E* v, long long n, E* y) {
    if (v) map(u, v, n, y, [=](float a, float b) { return factor * a + add * b; });
    else map(u, n, y, [=](float a) { return factor * a; });
}

template <class A, class B> __device__ inline void converted(const A* from, long long n, B* to) {
    each_wide<bf16>(n, [&](long long i, auto w) {
        float v[w.value];
        load(from + i, v);
        store(to + i, v);
    });
}

template <class E> __device__ inline void filled(float value, long long n, E* to) {
    each_wide<E>(n, [&](long long i, auto w) {
        float v[w.value];
#pragma unroll
        for (float& each : v) each = value;
        store(to + i, v);
    });
}

BUDGET(combine, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
combine(float factor, const bf16* u, float add, const bf16* v, long long n, bf16* y) {
    combined<bf16>(factor, u, add, v, n, y);
}

BUDGET(combine_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
combine_f32(float factor, const float* u, float add, const float* v, long long n, float* y) {
    combined<float>(factor, u, add, v, n, y);
}

BUDGET(convert_to_bf16, 40, 0);
extern "C" __global__ void __launch_bounds__(256) convert_to_bf16(const float* from, long long n, bf16* to) {
    converted(from, n, to);
}

BUDGET(convert_to_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256) convert_to_f32(const bf16* from, long long n, float* to) {
    converted(from, n, to);
}

BUDGET(fill, 40, 0);
extern "C" __global__ void __launch_bounds__(256) fill(float value, long long n, bf16* to) { filled<bf16>(value, n, to); }

BUDGET(fill_f32, 40, 0);
extern "C" __global__ void __launch_bounds__(256) fill_f32(float value, long long n, float* to) {
    filled<float>(value, n, to);
}

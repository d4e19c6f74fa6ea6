// The device side of device.cuh: inline PTX for sm_80 and newer.
#pragma once

#define SHARED(type, name)                                     \
    extern __shared__ __align__(128) unsigned char name##_[];  \
    type* const name = reinterpret_cast<type*>(name##_)

__device__ __forceinline__ float float_of_bits(unsigned v) { return __uint_as_float(v); }

/// Nearest 16-bit number, ties to even.
__device__ __forceinline__ bf16 to_bf16(float v) {
    bf16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
    return r;
}

/// d += a b of one warp: a 16x16 (rows), b 16x8 (columns), d 16x8.
__device__ __forceinline__ void mma(float d[4], const unsigned a[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Four 8x8 matrices of 16-bit numbers; lane i names row i % 8 of matrix i / 8 in shared memory.
__device__ __forceinline__ void load_matrices(unsigned r[4], const bf16* row) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

/// The same, each matrix transposed.
__device__ __forceinline__ void load_transposed(unsigned r[4], const bf16* row) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

/// Copies 16 bytes to shared memory, or zeros where `ok` is false; done after copies_wait.
__device__ __forceinline__ void copy16(bf16* to, const bf16* from, bool ok) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(ok ? 16 : 0) : "memory");
}

/// Waits until every copy that this thread began has arrived.
__device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// The linear layer on tensor cores: bf16 rows and weights, f32 sums; the contract is that of mod.rs.
//
// One product of tiles of 128 x 128, 8 warps of 32 x 64, 32 of the summed index at a time in three buffers: two are on their
// way while one is multiplied. Each factor lies with the summed index along its rows or down its columns:
//   forward             x [rows][in]        weight [out][in]
//   gradient of x       dy [rows][out]      weight [out][in], columns
//   gradient of weight  dy [rows][out], columns      x [rows][in], columns; splits of the rows are added in order
#include "device.cuh"

constexpr int EDGE = 128, DEPTH = 32, STAGE = EDGE * DEPTH, BUFFERS = 3;

struct Product {
    int m, n, k;  // of the result, and how many are summed
    int split;    // of k, per blockIdx.z: a multiple of 32
};

/// The tile of this block. Columns come first: blocks that run together share rows, of which there are many.
__device__ inline int tile_column(const Product& p) { return blockIdx.x % ((p.n + EDGE - 1) / EDGE); }
__device__ inline int tile_row(const Product& p) { return blockIdx.x / ((p.n + EDGE - 1) / EDGE); }

/// Where eight values of a staged factor lie, turned so that the eight rows of a matrix are in different banks.
template <bool COLUMNS> __device__ inline int place(int row, int piece) {
    return COLUMNS ? row * EDGE + ((piece ^ (row & 7)) << 3) : row * DEPTH + ((piece ^ (row >> 1 & 3)) << 3);
}

/// Loads lines first .. first + 127 and k .. k + 31 of a factor with `lines` lines: `[lines][depth]`, with COLUMNS
/// `[depth][lines]`. Zeros beyond.
template <bool COLUMNS>
__device__ inline void stage(bf16* to, const bf16* from, int first, int lines, int k, int depth) {
    const int pieces = COLUMNS ? EDGE / 8 : DEPTH / 8, width = COLUMNS ? lines : depth;
    for (int i = threadIdx.x; i < STAGE / 8; i += 256) {
        const int row = i / pieces, piece = i % pieces;
        const int down = (COLUMNS ? k : first) + row, along = (COLUMNS ? first : k) + piece * 8;
        const bool inside = down < (COLUMNS ? depth : lines);
        const bf16* const source = from + (long long)down * width + along;
        bf16* const here = to + place<COLUMNS>(row, piece);
        if (width % 8 == 0) {
            const bool ok = inside && along < width;
            copy16(here, ok ? source : from, ok);
        } else {
            for (int j = 0; j < 8; j++) here[j] = inside && along + j < width ? source[j] : (bf16)0;
        }
    }
}

/// sums of this warp: rows 32 * (warp % 4), columns 64 * (warp / 4) of the tile of this block.
template <bool A_COLUMNS, bool B_COLUMNS>
__device__ inline void multiply(const Product& p, const bf16* a, const bf16* b, float (&sums)[2][8][4]) {
    SHARED(bf16, left);  // the stages of a, then those of b
    bf16* const right = left + BUFFERS * STAGE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp % 4 * 32, column = warp / 4 * 64;
    const int begin = blockIdx.z * p.split, end = begin + p.split < p.k ? begin + p.split : p.k;
    auto load = [&](int k, int buffer) {
        stage<A_COLUMNS>(left + buffer * STAGE, a, tile_row(p) * EDGE, p.m, k, p.k);
        stage<B_COLUMNS>(right + buffer * STAGE, b, tile_column(p) * EDGE, p.n, k, p.k);
    };
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
    for (int buffer = 0; buffer < BUFFERS - 1; buffer++) {
        if (begin + buffer * DEPTH < end) load(begin + buffer * DEPTH, buffer);
        copies_commit();
    }
    for (int k = begin, buffer = 0; k < end; k += DEPTH, buffer = (buffer + 1) % BUFFERS) {
        copies_wait_but_one();
        __syncthreads();  // this buffer has arrived, the one before is read
        if (k + (BUFFERS - 1) * DEPTH < end) load(k + (BUFFERS - 1) * DEPTH, (buffer + BUFFERS - 1) % BUFFERS);
        copies_commit();
        const bf16 *const now_a = left + buffer * STAGE, *const now_b = right + buffer * STAGE;
#pragma unroll
        for (int j = 0; j < DEPTH; j += 16) {
            unsigned of_a[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const int at = row + 16 * m;
                if (A_COLUMNS) {
                    load_transposed(of_a[m], now_a + place<true>(j + (lane >> 4) * 8 + (lane & 7), at / 8 + (lane >> 3 & 1)));
                } else {
                    load_matrices(of_a[m], now_a + place<false>(at + (lane & 15), j / 8 + (lane >> 4)));
                }
            }
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                unsigned of_b[4];
                const int at = column + 8 * n;
                if (B_COLUMNS) {
                    load_transposed(of_b, now_b + place<true>(j + (lane & 15), at / 8 + (lane >> 4)));
                } else {
                    load_matrices(of_b, now_b + place<false>(at + (lane >> 4) * 8 + (lane & 7), j / 8 + (lane >> 3 & 1)));
                }
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    mma(sums[m][n], of_a[m], of_b[0], of_b[1]);
                    mma(sums[m][n + 1], of_a[m], of_b[2], of_b[3]);
                }
            }
        }
    }
}

/// Calls put(row, column, value, value of the next column, whether there is a next one) for what this thread holds.
template <class F> __device__ inline void each_pair(const Product& p, const float (&sums)[2][8][4], F put) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = tile_row(p) * EDGE + warp % 4 * 32 + 16 * m + 8 * h + (lane >> 2);
            if (row >= p.m) continue;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const int column = tile_column(p) * EDGE + warp / 4 * 64 + 8 * n + 2 * (lane & 3);
                if (column < p.n) put(row, column, sums[m][n][2 * h], sums[m][n][2 * h + 1], column + 1 < p.n);
            }
        }
}

__device__ inline void store_rows(const Product& p, const float (&sums)[2][8][4], const float* bias, bf16* y) {
    each_pair(p, sums, [&](int row, int column, float low, float high, bool two) {
        bf16* const to = y + (long long)row * p.n + column;
        if (bias) low += bias[column], high += two ? bias[column + 1] : 0.0f;
        if (p.n % 2 == 0) {
            store_pair(to, low, high);
        } else {
            store(to, low);
            if (two) store(to + 1, high);
        }
    });
}

/// y `[m][n]` = x weight^T + bias. Grid n / 128 * m / 128, 256 threads.
BUDGET(linear, 128, 49152);
extern "C" __global__ void __launch_bounds__(256)
linear(const Product p, const bf16* x, const bf16* weight, const float* bias, bf16* y) {
    float sums[2][8][4];
    multiply<false, false>(p, x, weight, sums);
    store_rows(p, sums, bias, y);
}

/// dx `[m][n]` = dy weight.
BUDGET(linear_grad_input, 128, 49152);
extern "C" __global__ void __launch_bounds__(256)
linear_grad_input(const Product p, const bf16* dy, const bf16* weight, bf16* dx) {
    float sums[2][8][4];
    multiply<false, true>(p, dy, weight, sums);
    store_rows(p, sums, nullptr, dx);
}

/// partial `[splits][m][n]` = dy^T x of a split of the rows. Grid (n / 128 * m / 128, 1, splits).
BUDGET(linear_grad_weight, 128, 49152);
extern "C" __global__ void __launch_bounds__(256)
linear_grad_weight(const Product p, const bf16* dy, const bf16* x, float* partial) {
    float sums[2][8][4];
    multiply<true, true>(p, dy, x, sums);
    each_pair(p, sums, [&](int row, int column, float low, float high, bool two) {
        float* const to = partial + ((long long)blockIdx.z * p.m + row) * p.n + column;
        to[0] = low;
        if (two) to[1] = high;
    });
}

/// The splits added up in their order. Any grid of 256 threads.
BUDGET(linear_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
linear_fold(const float* partial, int splits, long long values, float* dweight) {
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < values; i += gridDim.x * 256LL) {
        float sum = 0.0f;
        for (int s = 0; s < splits; s++) sum += partial[s * values + i];
        dweight[i] = sum;
    }
}

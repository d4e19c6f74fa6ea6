// Softmax attention on tensor cores without the matrix of scores in memory; the contract is that of mod.rs, with q, k,
// v, y and their gradients bf16, l and all sums f32. Head width 72 is padded to 80 columns of shared memory.
//
// A block has 4 warps of 16 rows. Forward and gradient of q: a tile of queries walks the keys of its sample; gradients
// of k and v: a tile of keys walks the queries, so that no two blocks add to one place and the bits do not depend on
// their order. Scores are recomputed from l in the backward pass. A row of scores is never stored: as the result of one
// product its fragments are the left factor of the next.
// In f32, for heads of up to 128 channels, a warp owns a row: lanes are 32 rows of the other side, then channels.
#include "device.cuh"

constexpr int TILE = 64;      // rows of a tile: 16 for each of 4 warps
constexpr int STRETCH = 32;   // queries that a tile of keys takes at a time: two sums and two rows of scores in registers
constexpr float LOG2E = 1.44269504f, HIDDEN = -1e30f;

struct Attention {
    int heads, width;  // channels of a head, at most the W of the kernel
    float scale;       // 1 / sqrt(width)
};

/// Of a tile: its first row and the row after those of its sample; of the other side, the sample's rows. Queries and keys
/// are sides; where all rows attend they have the same.
struct Span {
    int first, last, begin, end;
};

/// Rows stand W + 8 channels apart, so that eight of them lie in different banks.
template <int W> __device__ inline int place(int row, int c) { return row * (W + 8) + c; }

/// Rows first .. first + rows of a head into shared memory; zeros from `end` on and beyond the width of the head.
template <int W>
__device__ inline void stage(bf16* to, const bf16* x, const Attention& a, int first, int end, int rows) {
    for (int i = threadIdx.x; i < rows * (W / 8); i += blockDim.x) {
        const int row = i / (W / 8), c = i % (W / 8) * 8;
        const bf16* const from = x + ((long long)(first + row) * a.heads + blockIdx.y) * a.width + c;
        bf16* const here = to + place<W>(row, c);
        if (a.width % 8 == 0) {
            const bool ok = first + row < end && c < a.width;
            copy16(here, ok ? from : x, ok);
        } else {
            for (int j = 0; j < 8; j++) here[j] = first + row < end && c + j < a.width ? from[j] : (bf16)0;
        }
    }
}

template <int N> __device__ inline void clear(float (&sums)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] = 0.0f;
}

/// s[16 rows][8 N columns] = left right^T, both `[row][W]` in shared memory.
template <int W, int N> __device__ inline void scores(float (&s)[N][4], const bf16* left, const bf16* right) {
    const int lane = threadIdx.x % 32;
    clear(s);
#pragma unroll
    for (int k = 0; k < W; k += 16) {
        unsigned a[4], b[4];
        load_matrices(a, left + place<W>(lane & 15, k + (lane >> 4) * 8));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices(b, right + place<W>(8 * n + (lane >> 4) * 8 + (lane & 7), k + (lane >> 3 & 1) * 8));
            mma(s[n], a, b[0], b[1]);
            mma(s[n + 1], a, b[2], b[3]);
        }
    }
}

/// sums[16 rows][W] += s[16 rows][8 N] right, right `[8 N][W]` in shared memory.
template <int W, int N> __device__ inline void weigh(float (&sums)[W / 8][4], const float (&s)[N][4], const bf16* right) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        unsigned a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* const two = &s[k + (i >> 1)][2 * (i & 1)];
            a[i] = pair(to_bf16(two[0]), to_bf16(two[1]));
        }
#pragma unroll
        for (int n = 0; n < W / 8; n += 2) {
            load_transposed(b, right + place<W>(8 * k + (lane & 15), 8 * n + (lane >> 4) * 8));
            mma(sums[n], a, b[0], b[1]);
            mma(sums[n + 1], a, b[2], b[3]);
        }
    }
}

/// Writes the 16 rows of this warp, times `factor` of the row's half, into `[rows][heads][width]`. `tile` is read again for it:
/// held in registers until then it would not leave enough.
template <int W>
__device__ inline void store(bf16* to, const float (&sums)[W / 8][4], const Attention& a, Span tile, const float (&factor)[2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int row = tile.first + threadIdx.x / 32 * 16 + 8 * h + (lane >> 2);
        if (row >= tile.last) continue;
        bf16* const here = to + ((long long)row * a.heads + blockIdx.y) * a.width;
#pragma unroll
        for (int n = 0; n < W / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int c = 8 * n + 2 * (lane & 3) + i;
                if (c < a.width) here[c] = to_bf16(sums[n][2 * h + i] * factor[h]);
            }
    }
}

/// y and l `[rows][heads]`. Grid (tiles of queries, heads), 128 threads; shared memory: three tiles.
template <int W>
__device__ inline void forward(const Attention& a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v,
                               float* l, bf16* y) {
    SHARED(bf16, queries);
    bf16* const keys = queries + TILE * (W + 8);
    bf16* const values = keys + TILE * (W + 8);
    const Span tile = tiles[blockIdx.x];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sums[W / 8][4], top[2] = {HIDDEN, HIDDEN}, total[2] = {0.0f, 0.0f};
    clear(sums);
    stage<W>(queries, q, a, tile.first, tile.last, TILE);
    for (int j = tile.begin; j < tile.end; j += TILE) {
        if (j > tile.begin) __syncthreads();  // the keys before are read
        stage<W>(keys, k, a, j, tile.end, TILE);
        stage<W>(values, v, a, j, tile.end, TILE);
        copies_wait();
        __syncthreads();
        float s[TILE / 8][4], high[2] = {top[0], top[1]};
        scores<W>(s, queries + place<W>(16 * warp, 0), keys);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const bool seen = j + 8 * n + 2 * (lane & 3) + (i & 1) < tile.end;
                s[n][i] = seen ? s[n][i] * (a.scale * LOG2E) : HIDDEN;
                high[i >> 1] = fmaxf(high[i >> 1], s[n][i]);
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            for (int o = 1; o <= 2; o <<= 1) high[h] = fmaxf(high[h], __shfl_xor_sync(0xffffffffu, high[h], o));
            const float shrink = exp2f(top[h] - high[h]);
            top[h] = high[h];
            total[h] *= shrink;
#pragma unroll
            for (int n = 0; n < W / 8; n++) sums[n][2 * h] *= shrink, sums[n][2 * h + 1] *= shrink;
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = exp2f(s[n][i] - top[i >> 1]);
                total[i >> 1] += s[n][i];
            }
        weigh<W>(sums, s, values);
    }
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        for (int o = 1; o <= 2; o <<= 1) total[h] += __shfl_xor_sync(0xffffffffu, total[h], o);
        inverse[h] = 1.0f / total[h];
        const int row = tile.first + 16 * warp + 8 * h + (lane >> 2);
        if (row < tile.last && (lane & 3) == 0) {
            l[(long long)row * a.heads + blockIdx.y] = (top[h] + log2f(total[h])) * (1.0f / LOG2E);
        }
    }
    store<W>(y, sums, a, tiles[blockIdx.x], inverse);
}

/// p and then ds of a fragment: `s` to exp(s - l), `d` to p (d - mean); 0 where the column is beyond the sample.
__device__ inline void slope(float& s, float& d, bool seen, float scale, float l, float mean) {
    s = seen ? exp2f((s * scale - l) * LOG2E) : 0.0f;
    d = s * (d - mean);
}

/// dq. means `[rows][heads]`: dy . y. Grid and threads as forward; shared memory: four tiles.
template <int W>
__device__ inline void grad_q(const Attention& a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v,
                              const bf16* dy, const float* l, const float* means, bf16* dq) {
    SHARED(bf16, queries);
    bf16* const slopes = queries + TILE * (W + 8);
    bf16* const keys = slopes + TILE * (W + 8);
    bf16* const values = keys + TILE * (W + 8);
    const Span tile = tiles[blockIdx.x];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sums[W / 8][4], logs[2], mean[2];
    clear(sums);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int row = tile.first + 16 * warp + 8 * h + (lane >> 2);
        const long long at = (long long)row * a.heads + blockIdx.y;
        logs[h] = row < tile.last ? l[at] : 0.0f;
        mean[h] = row < tile.last ? means[at] : 0.0f;
    }
    stage<W>(queries, q, a, tile.first, tile.last, TILE);
    stage<W>(slopes, dy, a, tile.first, tile.last, TILE);
    for (int j = tile.begin; j < tile.end; j += TILE) {
        if (j > tile.begin) __syncthreads();
        stage<W>(keys, k, a, j, tile.end, TILE);
        stage<W>(values, v, a, j, tile.end, TILE);
        copies_wait();
        __syncthreads();
        float s[TILE / 8][4], d[TILE / 8][4];
        scores<W>(s, queries + place<W>(16 * warp, 0), keys);
        scores<W>(d, slopes + place<W>(16 * warp, 0), values);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const bool seen = j + 8 * n + 2 * (lane & 3) + (i & 1) < tile.end;
                slope(s[n][i], d[n][i], seen, a.scale, logs[i >> 1], mean[i >> 1]);
            }
        weigh<W>(sums, d, keys);
    }
    const float factor[2] = {a.scale, a.scale};
    store<W>(dq, sums, a, tiles[blockIdx.x], factor);
}

/// dk and dv. Grid (tiles of keys, heads), 128 threads; shared memory: two tiles, two stretches, and l and the means
/// of a stretch.
template <int W>
__device__ inline void grad_kv(const Attention& a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v,
                               const bf16* dy, const float* l, const float* means, bf16* dk, bf16* dv) {
    SHARED(bf16, keys);
    bf16* const values = keys + TILE * (W + 8);
    bf16* const queries = values + TILE * (W + 8);
    bf16* const slopes = queries + STRETCH * (W + 8);
    float* const rows = reinterpret_cast<float*>(slopes + STRETCH * (W + 8));
    const Span tile = tiles[blockIdx.x];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float to_k[W / 8][4], to_v[W / 8][4];
    clear(to_k);
    clear(to_v);
    stage<W>(keys, k, a, tile.first, tile.last, TILE);
    stage<W>(values, v, a, tile.first, tile.last, TILE);
    for (int j = tile.begin; j < tile.end; j += STRETCH) {
        if (j > tile.begin) __syncthreads();
        stage<W>(queries, q, a, j, tile.end, STRETCH);
        stage<W>(slopes, dy, a, j, tile.end, STRETCH);
        if (threadIdx.x < 2 * STRETCH) {
            const int row = j + threadIdx.x % STRETCH;
            const float* const from = threadIdx.x < STRETCH ? l : means;
            rows[threadIdx.x] = row < tile.end ? from[(long long)row * a.heads + blockIdx.y] : 0.0f;
        }
        copies_wait();
        __syncthreads();
        float s[STRETCH / 8][4], d[STRETCH / 8][4];
        scores<W>(s, keys + place<W>(16 * warp, 0), queries);
        scores<W>(d, values + place<W>(16 * warp, 0), slopes);
#pragma unroll
        for (int n = 0; n < STRETCH / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = 8 * n + 2 * (lane & 3) + (i & 1);
                slope(s[n][i], d[n][i], j + column < tile.end, a.scale, rows[column], rows[STRETCH + column]);
            }
        weigh<W>(to_v, s, slopes);
        weigh<W>(to_k, d, queries);
    }
    const float one[2] = {1.0f, 1.0f}, factor[2] = {a.scale, a.scale};
    copies_wait();  // those of the keys, where there is no query
    store<W>(dv, to_v, a, tiles[blockIdx.x], one);
    store<W>(dk, to_k, a, tiles[blockIdx.x], factor);
}

/// means `[rows][heads]`: dy . y. A warp per row and head; grid rows * heads / 8, 256 threads.
BUDGET(attention_means, 32, 0);
extern "C" __global__ void __launch_bounds__(256)
attention_means(const bf16* y, const bf16* dy, int count, int width, float* means) {
    const int at = blockIdx.x * 8 + threadIdx.x / 32;
    if (at >= count) return;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < width; c += 32) {
        const long long i = (long long)at * width + c;
        sum += from_bf16(y[i]) * from_bf16(dy[i]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) means[at] = sum;
}

BUDGET(attention_32, 104, 15360);
extern "C" __global__ void __launch_bounds__(128) attention_32(const Attention a, const Span* tiles, const bf16* q,
                                                               const bf16* k, const bf16* v, float* l, bf16* y) {
    forward<32>(a, tiles, q, k, v, l, y);
}

BUDGET(attention_64, 136, 27648);
extern "C" __global__ void __launch_bounds__(128) attention_64(const Attention a, const Span* tiles, const bf16* q,
                                                               const bf16* k, const bf16* v, float* l, bf16* y) {
    forward<64>(a, tiles, q, k, v, l, y);
}

BUDGET(attention_80, 136, 33792);
extern "C" __global__ void __launch_bounds__(128) attention_80(const Attention a, const Span* tiles, const bf16* q,
                                                               const bf16* k, const bf16* v, float* l, bf16* y) {
    forward<80>(a, tiles, q, k, v, l, y);
}

BUDGET(attention_grad_q_32, 120, 20480);
extern "C" __global__ void __launch_bounds__(128)
attention_grad_q_32(const Attention a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
                    const float* l, const float* means, bf16* dq) {
    grad_q<32>(a, tiles, q, k, v, dy, l, means, dq);
}

BUDGET(attention_grad_q_64, 160, 36864);
extern "C" __global__ void __launch_bounds__(128)
attention_grad_q_64(const Attention a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
                    const float* l, const float* means, bf16* dq) {
    grad_q<64>(a, tiles, q, k, v, dy, l, means, dq);
}

BUDGET(attention_grad_q_80, 168, 45056);
extern "C" __global__ void __launch_bounds__(128)
attention_grad_q_80(const Attention a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
                    const float* l, const float* means, bf16* dq) {
    grad_q<80>(a, tiles, q, k, v, dy, l, means, dq);
}

BUDGET(attention_grad_kv_32, 112, 15616);
extern "C" __global__ void __launch_bounds__(128)
attention_grad_kv_32(const Attention a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
                     const float* l, const float* means, bf16* dk, bf16* dv) {
    grad_kv<32>(a, tiles, q, k, v, dy, l, means, dk, dv);
}

BUDGET(attention_grad_kv_64, 152, 27904);
extern "C" __global__ void __launch_bounds__(128)
attention_grad_kv_64(const Attention a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
                     const float* l, const float* means, bf16* dk, bf16* dv) {
    grad_kv<64>(a, tiles, q, k, v, dy, l, means, dk, dv);
}

BUDGET(attention_grad_kv_80, 176, 34048);
extern "C" __global__ void __launch_bounds__(128)
attention_grad_kv_80(const Attention a, const Span* tiles, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
                     const float* l, const float* means, bf16* dk, bf16* dv) {
    grad_kv<80>(a, tiles, q, k, v, dy, l, means, dk, dv);
}

constexpr int ROWS = 8, LANES = 32, PARTS = 4;  // rows of a block, rows of the other side at a time, channels of a lane

/// Rows stand an odd number of channels apart.
__device__ inline int stride_of(const Attention& a) { return a.width | 1; }

/// `rows` rows of a head from `first` on into shared memory, times `factor`; zeros from `end` on.
__device__ inline void stage_rows(float* to, const float* x, const Attention& a, int first, int end, int rows, float factor) {
    for (int i = threadIdx.x; i < rows * a.width; i += 256) {
        const int row = i / a.width, c = i % a.width;
        const long long from = ((long long)(first + row) * a.heads + blockIdx.y) * a.width + c;
        to[row * stride_of(a) + c] = first + row < end ? factor * x[from] : 0.0f;
    }
}

__device__ inline float row_product(const float* left, const float* right, int width) {
    float sum = 0.0f;
    for (int c = 0; c < width; c++) sum += left[c] * right[c];
    return sum;
}

/// sums, of channels lane, lane + 32 ..: += the 32 rows times their factors.
__device__ inline void weigh_rows(float (&sums)[PARTS], const float* factors, const float* rows, const Attention& a) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < PARTS; n++) {
        const int c = lane + 32 * n;
        if (c >= a.width) break;
        for (int j = 0; j < LANES; j++) sums[n] += factors[j] * rows[j * stride_of(a) + c];
    }
}

__device__ inline void store_row(float* to, const float (&sums)[PARTS], const Attention& a, Span tile, float factor) {
    const int lane = threadIdx.x % 32, row = tile.first + threadIdx.x / 32;
    if (row >= tile.last) return;
#pragma unroll
    for (int n = 0; n < PARTS; n++) {
        const int c = lane + 32 * n;
        if (c < a.width) to[((long long)row * a.heads + blockIdx.y) * a.width + c] = sums[n] * factor;
    }
}

/// y and l. Grid (tiles of 8 queries, heads), 256 threads; shared memory: 8 + 2 x 32 rows, and 8 x 32 shares.
BUDGET(attention_f32, 136, 38176);
extern "C" __global__ void __launch_bounds__(256) attention_f32(const Attention a, const Span* tiles, const float* q,
                                                                const float* k, const float* v, float* l, float* y) {
    SHARED(float, queries);
    float* const keys = queries + ROWS * stride_of(a);
    float* const values = keys + LANES * stride_of(a);
    const Span tile = tiles[blockIdx.x];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* const shares = values + LANES * stride_of(a) + warp * LANES;
    float sums[PARTS] = {0.0f, 0.0f, 0.0f, 0.0f}, top = HIDDEN, total = 0.0f;
    stage_rows(queries, q, a, tile.first, tile.last, ROWS, a.scale);
    for (int j = tile.begin; j < tile.end; j += LANES) {
        __syncthreads();
        stage_rows(keys, k, a, j, tile.end, LANES, 1.0f);
        stage_rows(values, v, a, j, tile.end, LANES, 1.0f);
        __syncthreads();
        const float product = row_product(queries + warp * stride_of(a), keys + lane * stride_of(a), a.width);
        const float score = j + lane < tile.end ? product : HIDDEN;
        float high = fmaxf(top, score);
        for (int o = 16; o; o >>= 1) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, o));
        const float shrink = expf(top - high), share = expf(score - high);
        top = high;
        total = total * shrink + share;
        shares[lane] = share;
#pragma unroll
        for (int n = 0; n < PARTS; n++) sums[n] *= shrink;
        __syncthreads();
        weigh_rows(sums, shares, values, a);
    }
    total = warp_sum(total);
    store_row(y, sums, a, tile, 1.0f / total);
    const int row = tile.first + warp;
    if (lane == 0 && row < tile.last) l[(long long)row * a.heads + blockIdx.y] = top + logf(total);
}

/// dq and means `[rows][heads]`: the mean of dy . v under the shares. Grid and threads as forward; shared memory: 2 x 8 +
/// 2 x 32 rows, and 8 x 32 slopes.
BUDGET(attention_grad_q_f32, 136, 42304);
extern "C" __global__ void __launch_bounds__(256)
attention_grad_q_f32(const Attention a, const Span* tiles, const float* q, const float* k, const float* v, const float* dy,
                     const float* l, float* means, float* dq) {
    SHARED(float, queries);
    float* const slopes = queries + ROWS * stride_of(a);
    float* const keys = slopes + ROWS * stride_of(a);
    float* const values = keys + LANES * stride_of(a);
    const Span tile = tiles[blockIdx.x];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = tile.first + warp;
    const long long at = (long long)row * a.heads + blockIdx.y;
    float* const shares = values + LANES * stride_of(a) + warp * LANES;
    const float log = row < tile.last ? l[at] : 0.0f;
    float sums[PARTS] = {0.0f, 0.0f, 0.0f, 0.0f}, mean = 0.0f;
    stage_rows(queries, q, a, tile.first, tile.last, ROWS, a.scale);
    stage_rows(slopes, dy, a, tile.first, tile.last, ROWS, 1.0f);
    for (int pass = 0; pass < 2; pass++) {
        for (int j = tile.begin; j < tile.end; j += LANES) {
            __syncthreads();
            stage_rows(keys, k, a, j, tile.end, LANES, 1.0f);
            stage_rows(values, v, a, j, tile.end, LANES, 1.0f);
            __syncthreads();
            const float score = row_product(queries + warp * stride_of(a), keys + lane * stride_of(a), a.width);
            const float slope = row_product(slopes + warp * stride_of(a), values + lane * stride_of(a), a.width);
            const float share = j + lane < tile.end && row < tile.last ? expf(score - log) : 0.0f;
            if (pass == 0) {
                mean += share * slope;
                continue;
            }
            shares[lane] = share * (slope - mean);
            __syncthreads();
            weigh_rows(sums, shares, keys, a);
        }
        if (pass == 0) mean = warp_sum(mean);
    }
    store_row(dq, sums, a, tile, a.scale);
    if (lane == 0 && row < tile.last) means[at] = mean;
}

/// dk and dv: a warp owns a key. Grid (tiles of 8 keys, heads), 256 threads; shared memory as for dq, and once more 8 x 32.
BUDGET(attention_grad_kv_f32, 136, 43328);
extern "C" __global__ void __launch_bounds__(256)
attention_grad_kv_f32(const Attention a, const Span* tiles, const float* q, const float* k, const float* v, const float* dy,
                      const float* l, const float* means, float* dk, float* dv) {
    SHARED(float, keys);
    float* const values = keys + ROWS * stride_of(a);
    float* const queries = values + ROWS * stride_of(a);
    float* const slopes = queries + LANES * stride_of(a);
    const Span tile = tiles[blockIdx.x];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* const shares = slopes + LANES * stride_of(a) + warp * 2 * LANES;
    float to_k[PARTS] = {0.0f, 0.0f, 0.0f, 0.0f}, to_v[PARTS] = {0.0f, 0.0f, 0.0f, 0.0f};
    stage_rows(keys, k, a, tile.first, tile.last, ROWS, 1.0f);
    stage_rows(values, v, a, tile.first, tile.last, ROWS, 1.0f);
    for (int i = tile.begin; i < tile.end; i += LANES) {
        __syncthreads();
        stage_rows(queries, q, a, i, tile.end, LANES, a.scale);
        stage_rows(slopes, dy, a, i, tile.end, LANES, 1.0f);
        __syncthreads();
        const float score = row_product(keys + warp * stride_of(a), queries + lane * stride_of(a), a.width);
        const float slope = row_product(values + warp * stride_of(a), slopes + lane * stride_of(a), a.width);
        const long long at = (long long)(i + lane) * a.heads + blockIdx.y;
        const bool seen = i + lane < tile.end;
        const float share = seen ? expf(score - l[at]) : 0.0f;
        shares[lane] = share;
        shares[LANES + lane] = seen ? share * (slope - means[at]) : 0.0f;
        __syncthreads();
        weigh_rows(to_v, shares, slopes, a);
        weigh_rows(to_k, shares + LANES, queries, a);
    }
    store_row(dv, to_v, a, tile, 1.0f);
    store_row(dk, to_k, a, tile, 1.0f);
}

// Attention inside windows with a bias by relative position and regions; the contract is that of mod.rs: tensors f32 or
// bf16, products and sums f32, heads of at most 32 channels. A thread owns a query (or a key) and walks the keys (queries)
// of its window in stretches of shared memory; the matrix of scores is not kept, it is made again where it is needed.
#include "device.cuh"

constexpr int W = 32, STRETCH = 64, TILE = 16;

struct Windows {
    int windows, tokens, heads, width, edge;
    int regions;  // their number: windows of a sample times tokens, or 0
    float scale;  // 1 / sqrt(width)
};

/// Where a token stands in the table of biases: the entry of a pair is `place(i) - place(j) + centre`.
__device__ inline int place(const Windows& s, int i) {
    const int row = 2 * s.edge - 1;
    return (i / (s.edge * s.edge) * row + i / s.edge % s.edge) * row + i % s.edge;
}
__device__ inline int centre(const Windows& s) {
    const int row = 2 * s.edge - 1;
    return (s.edge - 1) * (row * row + row + 1);
}

/// What is added to the product of token i and token j.
__device__ inline float bias_of(const Windows& s, const float* table, const int* regions, int window, int head, int i, int j) {
    const float bias = table[(place(s, i) + centre(s) - place(s, j)) * s.heads + head];
    if (!s.regions) return bias;
    const int first = (int)((long long)window * s.tokens % s.regions);
    return regions[first + i] == regions[first + j] ? bias : bias - 100.0f;
}

/// First channel of a token in `[window][token][parts][head][width]`.
__device__ inline long long channel(const Windows& s, int parts, int part, int window, int head, int i) {
    return (((long long)window * s.tokens + i) * parts + part) * s.heads * s.width + head * s.width;
}

/// A row in registers, times `factor`; zeros from the width on and where `ok` is false.
template <class E> __device__ inline void load_row(float (&row)[W], const E* from, int width, float factor, bool ok) {
#pragma unroll
    for (int c = 0; c < W; c++) row[c] = ok && c < width ? number(from[c]) * factor : 0.0f;
}

/// `STRETCH` rows from token `first` on into shared memory, W apart; zeros beyond the tokens and the width.
template <class E>
__device__ inline void stage(float* to, const Windows& s, const E* x, int parts, int part, int window, int head, int first, float factor) {
    for (int i = threadIdx.x; i < STRETCH * W; i += blockDim.x) {
        const int token = first + i / W, c = i % W;
        const bool ok = token < s.tokens && c < s.width;
        to[i] = ok ? number(x[channel(s, parts, part, window, head, token) + c]) * factor : 0.0f;
    }
}

/// Inner product of the channels in use; every fourth is tested, by all threads alike.
__device__ inline float dot(const float (&row)[W], const float* other, int width) {
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < W; c += 4) {
        if (c < width) {
#pragma unroll
            for (int d = c; d < c + 4; d++) sum += row[d] * other[d];
        }
    }
    return sum;
}

/// row += factor * other.
__device__ inline void accumulate(float (&row)[W], float factor, const float* other, int width) {
#pragma unroll
    for (int c = 0; c < W; c += 4) {
        if (c < width) {
#pragma unroll
            for (int d = c; d < c + 4; d++) row[d] += factor * other[d];
        }
    }
}

template <class E> __device__ inline void store_row(E* to, const float (&row)[W], int width, float factor) {
#pragma unroll
    for (int c = 0; c < W; c++) {
        if (c < width) store(to + c, row[c] * factor);
    }
}

/// Softmax of the scores of query i: the unnormalised sum of values, their total, and the largest score.
template <class E>
__device__ inline void attend(const Windows& s, const E* qkv, const float* table, const int* regions, int head, int i,
                              const float (&q)[W], float* keys, float* values, float (&sum)[W], float& total, float& top) {
    const int window = blockIdx.x;
#pragma unroll
    for (int c = 0; c < W; c++) sum[c] = 0.0f;
    total = 0.0f, top = -1e30f;
    for (int first = 0; first < s.tokens; first += STRETCH) {
        __syncthreads();
        stage(keys, s, qkv, 3, 1, window, head, first, 1.0f);
        stage(values, s, qkv, 3, 2, window, head, first, 1.0f);
        __syncthreads();
        for (int j = 0; j < STRETCH && first + j < s.tokens && i < s.tokens; j++) {
            const float score = dot(q, keys + j * W, s.width) + bias_of(s, table, regions, window, head, i, first + j);
            if (score > top) {
                const float shrink = expf(top - score);
                total *= shrink;
#pragma unroll
                for (int c = 0; c < W; c++) sum[c] *= shrink;
                top = score;
            }
            const float p = expf(score - top);
            total += p;
            accumulate(sum, p, values + j * W, s.width);
        }
    }
}

/// y. Grid (windows, heads, tokens / 128), 128 threads; shared memory: keys and values of a stretch.
template <class E>
__device__ inline void forward(const Windows& s, const E* qkv, const float* table, const int* regions, E* y) {
    SHARED(float, keys);
    const int window = blockIdx.x, head = blockIdx.y, i = blockIdx.z * 128 + threadIdx.x;
    float q[W], sum[W], total, top;
    load_row(q, qkv + channel(s, 3, 0, window, head, i), s.width, s.scale, i < s.tokens);
    attend(s, qkv, table, regions, head, i, q, keys, keys + STRETCH * W, sum, total, top);
    if (i < s.tokens) store_row(y + channel(s, 1, 0, window, head, i), sum, s.width, 1.0f / total);
}

/// dq, and per query the log of the sum of its scores and dy . y: l, means `[windows][heads][tokens]`. As forward.
template <class E>
__device__ inline void grad_q(const Windows& s, const E* qkv, const float* table, const int* regions, const E* dy, float* l,
                              float* means, E* dqkv) {
    SHARED(float, keys);
    float* const values = keys + STRETCH * W;
    const int window = blockIdx.x, head = blockIdx.y, i = blockIdx.z * 128 + threadIdx.x;
    float q[W], sum[W], g[W], total, top;
    load_row(q, qkv + channel(s, 3, 0, window, head, i), s.width, s.scale, i < s.tokens);
    attend(s, qkv, table, regions, head, i, q, keys, values, sum, total, top);
    load_row(g, dy + channel(s, 1, 0, window, head, i), s.width, 1.0f, i < s.tokens);
    const float mean = dot(g, sum, s.width) / total, log = top + logf(total);
#pragma unroll
    for (int c = 0; c < W; c++) sum[c] = 0.0f;
    for (int first = 0; first < s.tokens; first += STRETCH) {
        __syncthreads();
        stage(keys, s, qkv, 3, 1, window, head, first, 1.0f);
        stage(values, s, qkv, 3, 2, window, head, first, 1.0f);
        __syncthreads();
        for (int j = 0; j < STRETCH && first + j < s.tokens && i < s.tokens; j++) {
            const float score = dot(q, keys + j * W, s.width) + bias_of(s, table, regions, window, head, i, first + j);
            accumulate(sum, expf(score - log) * (dot(g, values + j * W, s.width) - mean), keys + j * W, s.width);
        }
    }
    if (i >= s.tokens) return;
    const long long at = ((long long)window * s.heads + head) * s.tokens + i;
    l[at] = log;
    means[at] = mean;
    store_row(dqkv + channel(s, 3, 0, window, head, i), sum, s.width, s.scale);
}

/// dk and dv: a thread owns a key. Grid and threads as forward; shared memory: queries and slopes of a stretch.
template <class E>
__device__ inline void grad_kv(const Windows& s, const E* qkv, const float* table, const int* regions, const E* dy,
                               const float* l, const float* means, E* dqkv) {
    SHARED(float, queries);
    float* const slopes = queries + STRETCH * W;
    const int window = blockIdx.x, head = blockIdx.y, j = blockIdx.z * 128 + threadIdx.x;
    const long long at = ((long long)window * s.heads + head) * s.tokens;
    float k[W], v[W], dk[W], dv[W];
    load_row(k, qkv + channel(s, 3, 1, window, head, j), s.width, 1.0f, j < s.tokens);
    load_row(v, qkv + channel(s, 3, 2, window, head, j), s.width, 1.0f, j < s.tokens);
#pragma unroll
    for (int c = 0; c < W; c++) dk[c] = dv[c] = 0.0f;
    for (int first = 0; first < s.tokens; first += STRETCH) {
        __syncthreads();
        stage(queries, s, qkv, 3, 0, window, head, first, s.scale);
        stage(slopes, s, dy, 1, 0, window, head, first, 1.0f);
        __syncthreads();
        for (int n = 0; n < STRETCH && first + n < s.tokens && j < s.tokens; n++) {
            const int i = first + n;
            const float score = dot(k, queries + n * W, s.width) + bias_of(s, table, regions, window, head, i, j);
            const float p = expf(score - l[at + i]);
            accumulate(dv, p, slopes + n * W, s.width);
            accumulate(dk, p * (dot(v, slopes + n * W, s.width) - means[at + i]), queries + n * W, s.width);
        }
    }
    if (j >= s.tokens) return;
    store_row(dqkv + channel(s, 3, 1, window, head, j), dk, s.width, 1.0f);
    store_row(dqkv + channel(s, 3, 2, window, head, j), dv, s.width, 1.0f);
}

/// pairs `[slices][heads][tokens][tokens]`: the gradient of each pair's bias, summed over the windows of a slice. Grid
/// ((tokens / 16)^2, heads, slices), 256 threads: 16 queries times 16 keys; shared memory: 16 rows of q, dy, k and v.
template <class E>
__device__ inline void pairs_of(const Windows& s, int slice, const E* qkv, const float* table, const int* regions, const E* dy,
                                const float* l, const float* means, float* pairs) {
    SHARED(float, rows);  // [4][16][W + 1]
    const int tiles = (s.tokens + TILE - 1) / TILE, head = blockIdx.y;
    const int i0 = blockIdx.x / tiles * TILE, j0 = blockIdx.x % tiles * TILE;
    const int i = i0 + threadIdx.x / TILE, j = j0 + threadIdx.x % TILE;
    const int begin = blockIdx.z * slice, end = begin + slice < s.windows ? begin + slice : s.windows;
    float sum = 0.0f;
    for (int window = begin; window < end; window++) {
        __syncthreads();
        for (int n = threadIdx.x; n < 4 * TILE * W; n += 256) {
            const int kind = n / (TILE * W), row = n / W % TILE, c = n % W, token = (kind < 2 ? i0 : j0) + row;
            float value = 0.0f;
            if (token < s.tokens && c < s.width) {
                if (kind == 1) value = number(dy[channel(s, 1, 0, window, head, token) + c]);
                else value = number(qkv[channel(s, 3, kind ? kind - 1 : 0, window, head, token) + c]) * (kind ? 1.0f : s.scale);
            }
            rows[(kind * TILE + row) * (W + 1) + c] = value;
        }
        __syncthreads();
        if (i >= s.tokens || j >= s.tokens) continue;
        const float* const q = rows + threadIdx.x / TILE * (W + 1);
        const float* const k = rows + (2 * TILE + threadIdx.x % TILE) * (W + 1);
        const float *const g = q + TILE * (W + 1), *const v = k + TILE * (W + 1);
        float score = bias_of(s, table, regions, window, head, i, j), slope = 0.0f;
        for (int c = 0; c < s.width; c++) score += q[c] * k[c], slope += g[c] * v[c];
        const long long at = ((long long)window * s.heads + head) * s.tokens + i;
        sum += expf(score - l[at]) * (slope - means[at]);
    }
    if (i < s.tokens && j < s.tokens) {
        pairs[(((long long)blockIdx.z * s.heads + head) * s.tokens + i) * s.tokens + j] = sum;
    }
}

/// dtable `[entries][heads]`: the pairs of each entry, slice by slice. A warp per value: grid entries * heads / 8, 256
/// threads.
BUDGET(window_attention_table, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
window_attention_table(const Windows s, int slices, const float* pairs, float* dtable) {
    const int row = 2 * s.edge - 1, at = blockIdx.x * 8 + threadIdx.x / 32, entry = at / s.heads, head = at % s.heads;
    if (entry >= row * row * row) return;
    const int apart = entry - centre(s);  // place(i) - place(j) of its pairs
    const int up[3] = {entry / (row * row) - s.edge + 1, entry / row % row - s.edge + 1, entry % row - s.edge + 1};
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < s.tokens; i += 32) {
        const int z = i / (s.edge * s.edge) - up[0], y = i / s.edge % s.edge - up[1], x = i % s.edge - up[2];
        const int j = (z * s.edge + y) * s.edge + x;
        if (z < 0 || y < 0 || x < 0 || z >= s.edge || y >= s.edge || x >= s.edge || j >= s.tokens) continue;
        if (place(s, i) - place(s, j) != apart) continue;
        for (int k = 0; k < slices; k++) sum += pairs[(((long long)k * s.heads + head) * s.tokens + i) * s.tokens + j];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) dtable[at] = sum;
}

BUDGET(window_attention, 128, 16384);
extern "C" __global__ void __launch_bounds__(128)
window_attention(const Windows s, const bf16* qkv, const float* table, const int* regions, bf16* y) {
    forward(s, qkv, table, regions, y);
}

BUDGET(window_attention_f32, 128, 16384);
extern "C" __global__ void __launch_bounds__(128)
window_attention_f32(const Windows s, const float* qkv, const float* table, const int* regions, float* y) {
    forward(s, qkv, table, regions, y);
}

BUDGET(window_attention_grad_q, 168, 16384);
extern "C" __global__ void __launch_bounds__(128)
window_attention_grad_q(const Windows s, const bf16* qkv, const float* table, const int* regions, const bf16* dy, float* l,
                        float* means, bf16* dqkv) {
    grad_q(s, qkv, table, regions, dy, l, means, dqkv);
}

BUDGET(window_attention_grad_q_f32, 168, 16384);
extern "C" __global__ void __launch_bounds__(128)
window_attention_grad_q_f32(const Windows s, const float* qkv, const float* table, const int* regions, const float* dy,
                            float* l, float* means, float* dqkv) {
    grad_q(s, qkv, table, regions, dy, l, means, dqkv);
}

BUDGET(window_attention_grad_kv, 176, 16384);
extern "C" __global__ void __launch_bounds__(128)
window_attention_grad_kv(const Windows s, const bf16* qkv, const float* table, const int* regions, const bf16* dy,
                         const float* l, const float* means, bf16* dqkv) {
    grad_kv(s, qkv, table, regions, dy, l, means, dqkv);
}

BUDGET(window_attention_grad_kv_f32, 176, 16384);
extern "C" __global__ void __launch_bounds__(128)
window_attention_grad_kv_f32(const Windows s, const float* qkv, const float* table, const int* regions, const float* dy,
                             const float* l, const float* means, float* dqkv) {
    grad_kv(s, qkv, table, regions, dy, l, means, dqkv);
}

BUDGET(window_attention_pairs, 64, 8448);
extern "C" __global__ void __launch_bounds__(256)
window_attention_pairs(const Windows s, int slice, const bf16* qkv, const float* table, const int* regions, const bf16* dy,
                       const float* l, const float* means, float* pairs) {
    pairs_of(s, slice, qkv, table, regions, dy, l, means, pairs);
}

BUDGET(window_attention_pairs_f32, 64, 8448);
extern "C" __global__ void __launch_bounds__(256)
window_attention_pairs_f32(const Windows s, int slice, const float* qkv, const float* table, const int* regions,
                           const float* dy, const float* l, const float* means, float* pairs) {
    pairs_of(s, slice, qkv, table, regions, dy, l, means, pairs);
}

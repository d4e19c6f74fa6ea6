// 3D convolution over block lists on tensor cores: bf16 operands, f32 sums. The contract is that of mod.rs; f32 tensors are
// rounded to bf16 when they are loaded.
//
// One kernel computes every member of the family; the host chooses the geometry. A tile is `parts` blocks times
// `tile` voxels, at most as many as the block has rows of the matrix product (GRAD_ROWS); what its taps read is loaded into shared
// memory once (the halo), hidden neighbours as zeros, and serves all taps, each a constant offset into it. Where the voxels of a
// halo lie is found once per tile.
//   forward              stride 1 or 2, all taps
//   gradient of x        stride 1: forward with turned taps; stride 2: one launch per parity of the input voxel,
//                        with the taps that reach it (spread 2)
//   transposed 2x2x2     one launch per parity with one tap (spread 2); its gradient of x is stride 2 with 8 taps
// The weight gradient walks the tiles with sums in registers; splits are added up in a fixed order.
#include "device.cuh"

constexpr int CHANNELS = 32;   // input channels that are staged at a time
constexpr int AHEAD = 3;       // taps whose weights are there or on their way
constexpr int GRAD_ROWS = 64, GRAD_HALO = 704;  // rows of a tile of conv3d_weight, and voxels of its halo at most

struct Conv {
    int blocks;              // visible blocks
    int side[3];             // rows of one block: output voxels (of one parity)
    int tile[3], parts;      // rows of one tile; parts > 1 only where tile is side
    int halo[3];             // (tile - 1) * stride + reach of the taps
    int stride, pad;         // row o reads input o * stride - pad + tap
    int spread, parity[3];   // row o is written to output voxel o * spread + parity
    int c_in, c_out;         // channels in memory
    int in_padded, out_padded;  // channels of the packed weights
    int taps, offset[27];    // of each tap: its place in the halo, in voxels
    unsigned of_tile[3], of_halo[3];  // `inverse` of what is in a tile and in a halo, in a plane of it, in a row
};

/// First block and first row of a tile.
struct Tile {
    int block, first[3];
};

__device__ inline int tiles_along(const Conv& g, int d) { return (g.side[d] + g.tile[d] - 1) / g.tile[d]; }

__device__ inline int tile_count(const Conv& g) {
    return (g.blocks + g.parts - 1) / g.parts * tiles_along(g, 0) * tiles_along(g, 1) * tiles_along(g, 2);
}

__device__ inline Tile tile_at(const Conv& g, int index) {
    const int ny = tiles_along(g, 1), nx = tiles_along(g, 2), n = tiles_along(g, 0) * ny * nx;
    const int in = index % n;
    return {index / n * g.parts, {in / (ny * nx) * g.tile[0], in / nx % ny * g.tile[1], in % nx * g.tile[2]}};
}

/// A row of a tile, or a voxel of its halo: which block, and where in it.
struct Row {
    int part, at[3];
};

/// v / d of numbers below 1448, inverse = 2^21 / d, rounded up.
__device__ inline int divided(int v, unsigned inverse) { return (int)((unsigned)v * inverse >> 21); }

__device__ inline Row split(int v, const int* sides, const unsigned* inverse) {
    Row r;
    r.part = divided(v, inverse[0]);
    v -= r.part * sides[0] * sides[1] * sides[2];
    r.at[0] = divided(v, inverse[1]);
    v -= r.at[0] * sides[1] * sides[2];
    r.at[1] = divided(v, inverse[2]);
    r.at[2] = v - r.at[1] * sides[2];
    return r;
}

__device__ inline Row row_of(const Conv& g, int row) { return split(row, g.tile, g.of_tile); }

/// Place of tap 0 of a row in the halo; rows beyond the tile stand at 0, and nobody stores what they compute.
__device__ inline int halo_place(const Conv& g, int row) {
    const Row r = row_of(g, row);
    if (r.part >= g.parts) return 0;
    const int z = r.part * g.halo[0] + r.at[0] * g.stride;
    return (z * g.halo[1] + r.at[1] * g.stride) * g.halo[2] + r.at[2] * g.stride;
}

/// Voxel of the output that a row writes, or -1.
__device__ inline int output_voxel(const Conv& g, const Tile& tile, int row) {
    const Row r = row_of(g, row);
    const int block = tile.block + r.part;
    if (r.part >= g.parts || block >= g.blocks) return -1;
    int voxel = block;
    for (int d = 0; d < 3; d++) {
        const int o = tile.first[d] + r.at[d];
        if (o >= g.side[d]) return -1;
        voxel = voxel * g.side[d] * g.spread + o * g.spread + g.parity[d];
    }
    return voxel;
}

/// Eight channels are 16 bytes, a row of 32 channels is four such pieces; turned so that the eight rows of a matrix lie
/// in different banks.
__device__ inline int piece32(int row, int piece) { return row * 32 + ((piece ^ (row >> 1 & 3)) << 3); }
__device__ inline int piece64(int row, int piece) { return row * 64 + ((piece ^ (row & 7)) << 3); }
template <int N> __device__ inline int piece_of(int row, int piece) {
    return N == 64 ? piece64(row, piece) : piece32(row, piece);
}

/// Eight channels from `from` on to shared memory; zeros where not `ok` and beyond the last channel.
__device__ inline void stage_piece(bf16* to, const bf16* x, long long voxel, int first, int channels, bool ok) {
    const bf16* from = x + voxel * channels + first;
    if (channels % 8 == 0) {
        ok = ok && first < channels;
        copy16(to, ok ? from : x, ok);
    } else {
        for (int i = 0; i < 8; i++) to[i] = ok && first + i < channels ? from[i] : (bf16)0;
    }
}

__device__ inline void stage_piece(bf16* to, const float* x, long long voxel, int first, int channels, bool ok) {
    const float* from = x + voxel * channels + first;
    for (int i = 0; i < 8; i++) to[i] = ok && first + i < channels ? to_bf16(from[i]) : (bf16)0;
}

/// A tensor of `first` channels, or two that lie joined on channels: the other one, null where there is none, has the channels
/// after them.
template <class E> struct Joined {
    E *x, *other;
    int first;
    /// A voxel's channel, of so many.
    __device__ E* at(long long voxel, int channel, int channels) const {
        if (!other || channel < first) return x + voxel * (other ? first : channels) + channel;
        return other + voxel * (channels - first) + channel - first;
    }
};

/// What a convolution reads, as it is stored: eight channels at a time, which are of one tensor.
template <class E> struct Stored {
    Joined<const E> from;
    __device__ void begin(const Conv&, const Tile&, int) {}
    __device__ void stage(const Conv& g, bf16* to, long long voxel, int channel, bool ok) const {
        const bool second = from.other && channel >= from.first;
        const int width = second ? g.c_in - from.first : from.other ? from.first : g.c_in;
        stage_piece(to, second ? from.other : from.x, voxel, second ? channel - from.first : channel, width, ok);
    }
};

/// What ops/norm and its activation make of x, rounded as they store it; hidden voxels are zeros after the norm. For channels in
/// multiples of 8, and tiles with blocks of one sample.
struct Normed {
    const float* statistics;           // [2][samples][c_in]: mean, reciprocal deviation
    const float *gamma, *beta;         // may be null
    const int* starts;                 // first block of each sample, and the number of blocks
    int samples;
    float slope;
};
struct OnLoad {
    const bf16* x;
    Normed norm;
    float mean[8], factor[8], beta[8];  // of the eight channels that this thread stages
    /// Whoever stages pieces i, i + threads ... has always the same of four.
    __device__ void begin(const Conv& g, const Tile& tile, int channel) {
        const int first = channel + (threadIdx.x & 3) * 8, sample = sample_of(norm.starts, tile.block);
        if (first >= g.c_in) return;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int of = sample * g.c_in + first + i;
            mean[i] = norm.statistics[of];
            factor[i] = (norm.gamma ? norm.gamma[first + i] : 1.0f) * norm.statistics[norm.samples * g.c_in + of];
            beta[i] = norm.beta ? norm.beta[first + i] : 0.0f;
        }
    }
    __device__ void stage(const Conv& g, bf16* to, long long voxel, int first, bool ok) const {
        float v[8] = {};
        if (ok && first < g.c_in) {
            load(x + voxel * g.c_in + first, v);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float made = normed(v[i], mean[i], factor[i], beta[i]);
                v[i] = made > 0.0f ? made : norm.slope * made;
            }
        }
        store(to, v);
    }
};

__device__ inline int halo_voxels(const Conv& g) { return g.parts * g.halo[0] * g.halo[1] * g.halo[2]; }

/// Where a voxel of a halo lies: in which block, or -1 where that is hidden, and where in it.
struct Found {
    int source, voxel;
    /// Its row of x, or -1.
    __device__ int row(const Conv& g) const {
        return source < 0 ? -1 : source * (g.side[0] * g.side[1] * g.side[2] * g.stride * g.stride * g.stride) + voxel;
    }
};

/// Voxel v of the halo of a tile. neighbours: 27 block numbers per block, -1 for hidden.
__device__ inline Found find(const Conv& g, const Tile& tile, const int* neighbours, int v) {
    const Row r = split(v, g.halo, g.of_halo);
    int neighbour = 0, voxel = 0;
    bool ok = tile.block + r.part < g.blocks;
    for (int d = 0; d < 3; d++) {
        const int side = g.side[d] * g.stride, p = tile.first[d] * g.stride - g.pad + r.at[d];
        neighbour = neighbour * 3 + (p < 0 ? 0 : p < side ? 1 : 2);
        voxel = voxel * side + (p < 0 ? p + side : p < side ? p : p - side);
        ok = ok && p <= side;
    }
    return {ok ? neighbours[(tile.block + r.part) * 27 + neighbour] : -1, voxel};
}

/// Loads 32 channels of a halo.
template <class From> __device__ inline void stage_halo(bf16* halo, const Conv& g, const int* places, From& from, int channel) {
    const int pieces = 4 * halo_voxels(g);
    for (int i = threadIdx.x; i < pieces; i += blockDim.x) {
        const int v = i >> 2, piece = i & 3, place = places[v];
        from.stage(g, halo + piece32(v, piece), place < 0 ? 0 : place, channel + piece * 8, place >= 0);
    }
}

/// Loads 32 x N packed weights of one tap.
template <int N>
__device__ inline void stage_weights(bf16* to, const Conv& g, const bf16* weights, int tap, int channel, int first) {
    for (int i = threadIdx.x; i < CHANNELS * N / 8; i += blockDim.x) {
        const int k = i / (N / 8), piece = i % (N / 8);
        const long long row = (long long)tap * g.in_padded + channel + k;
        copy16(to + piece_of<N>(k, piece), weights + row * g.out_padded + first + piece * 8, true);
    }
}

/// Mean and variance of each of N channels over the rows of a tile, all of which are there: tiles `[2][tiles][c_out]`.
template <int N, int M>
__device__ inline void describe(const Conv& g, float* shared, const float (&sums)[M][N / 8][4], const float* bias, float* tiles) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int rows = g.parts * g.tile[0] * g.tile[1] * g.tile[2];
    float* const means = shared + warps * N;
    for (int pass = 0; pass < 2; pass++) {  // the variance is no difference of squares
        __syncthreads();
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int column = n * 8 + (lane & 3) * 2 + j;
                const float mean = pass ? means[column] : 0.0f;
                float sum = 0.0f;
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const float off = sums[m][n][2 * h + j] - mean;
                        if ((warp * M + m) * 16 + h * 8 + (lane >> 2) < rows) sum += pass ? off * off : off;
                    }
                for (int o = 4; o < 32; o <<= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
                if (lane < 4) shared[warp * N + column] = sum;
            }
        __syncthreads();
        if (threadIdx.x < N) {
            const int channel = blockIdx.y * N + threadIdx.x;
            float mean = 0.0f;
            for (int w = 0; w < warps; w++) mean += shared[w * N + threadIdx.x];
            mean /= (float)rows;
            if (pass == 0) means[threadIdx.x] = mean;
            if (channel < g.c_out) {
                const long long to = (long long)(pass * gridDim.x + blockIdx.x) * g.c_out + channel;
                tiles[to] = mean + (pass == 0 && bias ? bias[channel] : 0.0f);
            }
        }
    }
}

/// y = conv(x) + bias of one tile and N output channels, by warps of 16 M rows x N channels. tiles: as of `describe`, or null.
template <int N, int M, class From, class E>
__device__ inline void conv3d(const Conv& g, From from, const int* neighbours, const bf16* weights, const float* bias,
                              const Joined<E>& y, float* tiles) {
    SHARED(bf16, halo);
    bf16* const staged = halo + halo_voxels(g) * CHANNELS;
    int* const places = reinterpret_cast<int*>(staged + AHEAD * CHANNELS * N);
    int* const outputs = places + halo_voxels(g);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.y * N;
    const Tile tile = tile_at(g, blockIdx.x);
    for (int v = threadIdx.x; v < halo_voxels(g); v += blockDim.x) places[v] = find(g, tile, neighbours, v).row(g);
    for (int row = threadIdx.x; row < (int)blockDim.x / 2 * M; row += blockDim.x) outputs[row] = output_voxel(g, tile, row);
    __syncthreads();
    int place[M];
#pragma unroll
    for (int m = 0; m < M; m++) place[m] = halo_place(g, (warp * M + m) * 16 + (lane & 15));
    float sums[M][N / 8][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;

    for (int channel = 0; channel < g.in_padded; channel += CHANNELS) {
        if (channel) __syncthreads();  // the last tap of the channels before is read
        from.begin(g, tile, channel);
        stage_halo(halo, g, places, from, channel);
        for (int tap = 0; tap < AHEAD - 1; tap++) {
            if (tap < g.taps) stage_weights<N>(staged + tap * CHANNELS * N, g, weights, tap, channel, first);
            copies_commit();
        }
        for (int tap = 0, at = 0; tap < g.taps; tap++, at = at + 1 < AHEAD ? at + 1 : 0) {
            copies_wait_but_one();
            __syncthreads();
            const bf16* const now = staged + at * CHANNELS * N;
            if (tap + AHEAD - 1 < g.taps) {
                bf16* const later = staged + (at ? at - 1 : AHEAD - 1) * CHANNELS * N;
                stage_weights<N>(later, g, weights, tap + AHEAD - 1, channel, first);
            }
            copies_commit();
#pragma unroll
            for (int k = 0; k < CHANNELS / 16; k++) {
                unsigned a[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) {
                    load_matrices(a[m], halo + piece32(place[m] + g.offset[tap], 2 * k + (lane >> 4)));
                }
#pragma unroll
                for (int n = 0; n < N / 16; n++) {
                    unsigned b[4];
                    load_transposed(b, now + piece_of<N>(16 * k + (lane & 15), 2 * n + (lane >> 4)));
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma(sums[m][2 * n], a[m], b[0], b[1]);
                        mma(sums[m][2 * n + 1], a[m], b[2], b[3]);
                    }
                }
            }
        }
    }
    if (tiles) describe<N, M>(g, reinterpret_cast<float*>(halo), sums, bias, tiles);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int voxel = outputs[(warp * M + m) * 16 + h * 8 + (lane >> 2)];
            if (voxel < 0) continue;
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
                const int c = first + n * 8 + (lane & 3) * 2;
                if (c >= g.c_out) continue;
                E* const to = y.at(voxel, c, g.c_out);
                const float low = sums[m][n][2 * h] + (bias ? bias[c] : 0.0f);
                if (c + 1 == g.c_out) {
                    store(to, low);
                    continue;
                }
                const float high = sums[m][n][2 * h + 1] + (bias ? bias[c + 1] : 0.0f);
                if (g.c_out % 2 == 0) {
                    store_pair(to, low, high);
                } else {
                    store(to, low);
                    store(to + 1, high);
                }
            }
        }
}

/// Grid (tiles, out_padded / 32), a warp for each 64 rows, at most 4; shared memory: the halo, three taps of weights, and
/// where voxels lie.
BUDGET(conv3d_32, 160, 101376);
extern "C" __global__ void __launch_bounds__(128)
conv3d_32(const Conv g, const Joined<const bf16> x, const int* neighbours, const bf16* weights, const float* bias,
          const Joined<bf16> y, float* tiles) {
    conv3d<32, 4>(g, Stored<bf16>{x}, neighbours, weights, bias, y, tiles);
}

BUDGET(conv3d_32_f32, 160, 101376);
extern "C" __global__ void __launch_bounds__(128)
conv3d_32_f32(const Conv g, const Joined<const float> x, const int* neighbours, const bf16* weights, const float* bias,
              const Joined<float> y, float* tiles) {
    conv3d<32, 4>(g, Stored<float>{x}, neighbours, weights, bias, y, tiles);
}

/// Grid (tiles, out_padded / 64), a warp for each 32 rows, at most 8.
BUDGET(conv3d_64, 144, 101376);
extern "C" __global__ void __launch_bounds__(256)
conv3d_64(const Conv g, const Joined<const bf16> x, const int* neighbours, const bf16* weights, const float* bias,
          const Joined<bf16> y, float* tiles) {
    conv3d<64, 2>(g, Stored<bf16>{x}, neighbours, weights, bias, y, tiles);
}

BUDGET(conv3d_64_f32, 144, 101376);
extern "C" __global__ void __launch_bounds__(256)
conv3d_64_f32(const Conv g, const Joined<const float> x, const int* neighbours, const bf16* weights, const float* bias,
              const Joined<float> y, float* tiles) {
    conv3d<64, 2>(g, Stored<float>{x}, neighbours, weights, bias, y, tiles);
}

/// The same of what a norm makes of x.
BUDGET(conv3d_32_normed, 160, 101376);
extern "C" __global__ void __launch_bounds__(128)
conv3d_32_normed(const Conv g, const bf16* x, const Normed norm, const int* neighbours, const bf16* weights, const float* bias,
                 const Joined<bf16> y, float* tiles) {
    conv3d<32, 4>(g, OnLoad{x, norm, {}, {}, {}}, neighbours, weights, bias, y, tiles);
}

BUDGET(conv3d_64_normed, 144, 101376);
extern "C" __global__ void __launch_bounds__(256)
conv3d_64_normed(const Conv g, const bf16* x, const Normed norm, const int* neighbours, const bf16* weights, const float* bias,
                 const Joined<bf16> y, float* tiles) {
    conv3d<64, 2>(g, OnLoad{x, norm, {}, {}, {}}, neighbours, weights, bias, y, tiles);
}

/// Weights as conv3d reads them: `[tap][in_padded][out_padded]` bf16, zeros beyond the channels. `source` names the tap
/// of the file that each packed tap is; `turned`: the file is `[in][out][taps]`, as for gradients and transposed ones.
struct Pack {
    int in, out, in_padded, out_padded, turned;
    int taps, file_taps, source[27];
};

/// A block turns 8 input by 32 output channels in shared memory (8 x 32 x file_taps values), so that both sides are moved in one
/// piece: grid (out_padded / 32, in_padded / 8), 256 threads.
BUDGET(conv3d_pack, 40, 27648);
extern "C" __global__ void __launch_bounds__(256) conv3d_pack(const Pack p, const float* weights, bf16* packed) {
    SHARED(float, values);  // [8 in][32 out][file_taps]
    const int first_in = blockIdx.y * 8, first_out = blockIdx.x * 32, inner = p.turned ? 32 : 8;
    for (int i = threadIdx.x; i < 256 * p.file_taps; i += 256) {
        const int slow = i / p.file_taps / inner, fast = i / p.file_taps % inner, tap = i % p.file_taps;
        const int in = p.turned ? slow : fast, out = p.turned ? fast : slow;
        const bool inside = first_in + in < p.in && first_out + out < p.out;
        const long long line = p.turned ? (long long)(first_in + in) * p.out + first_out + out : (long long)(first_out + out) * p.in + first_in + in;
        values[(in * 32 + out) * p.file_taps + tap] = inside ? weights[line * p.file_taps + tap] : 0.0f;
    }
    __syncthreads();
    const int out = threadIdx.x % 32, in = threadIdx.x / 32;
    for (int tap = 0; tap < p.taps; tap++) {
        const long long row = (long long)tap * p.in_padded + first_in + in;
        packed[row * p.out_padded + first_out + out] = to_bf16(values[threadIdx.x * p.file_taps + p.source[tap]]);
    }
}

/// Sums of x[row + tap][c_in] * dy[row][c_out] over the tiles blockIdx.x, blockIdx.x + gridDim.x ... for 32 x 32
/// channels: the next tile is loaded while one is multiplied, and where the one after it lies is looked up. GROUPS x SHARES warps: a group holds TAPS taps, a share every SHARES-th stretch of 16 rows.
/// partial `[gridDim.x * SHARES][taps][in_padded][out_padded]`. Geometry as for conv3d; dy is read where it writes.
template <int TAPS, int GROUPS, int SHARES, class From, class E>
__device__ inline void conv3d_weight(const Conv& g, From x, const int* neighbours, const E* dy, float* partial) {
    SHARED(bf16, halo);
    const int count = tile_count(g), voxels = halo_voxels(g), buffer = (voxels + GRAD_ROWS) * CHANNELS;
    int* const places = reinterpret_cast<int*>(halo + 2 * buffer);
    int* const outputs = places + voxels;
    constexpr int STRETCHES = GRAD_ROWS / 16 / SHARES;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = warp % GROUPS, share = warp / GROUPS;
    const int from = blockIdx.y * 32, to = blockIdx.z * 32;
    constexpr int THREADS = GROUPS * SHARES * 32, EACH = (GRAD_HALO + THREADS - 1) / THREADS;
    Found found[EACH];
    auto look = [&](const Tile& tile) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int v = threadIdx.x + i * THREADS;
            if (v < voxels) found[i] = find(g, tile, neighbours, v);
        }
    };
    auto keep = [&](const Tile& tile) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int v = threadIdx.x + i * THREADS;
            if (v < voxels) places[v] = found[i].row(g);
        }
        if (threadIdx.x < GRAD_ROWS) outputs[threadIdx.x] = output_voxel(g, tile, threadIdx.x);
    };
    auto load = [&](const Tile& tile, int which) {
        bf16 *const staged = halo + which * buffer, *const rows = staged + voxels * CHANNELS;
        x.begin(g, tile, from);
        stage_halo(staged, g, places, x, from);
        for (int i = threadIdx.x; i < GRAD_ROWS * 4; i += THREADS) {
            const int row = i >> 2, piece = i & 3, voxel = outputs[row];
            stage_piece(rows + piece32(row, piece), dy, voxel < 0 ? 0 : voxel, to + piece * 8, g.c_out, voxel >= 0);
        }
    };
    int place[STRETCHES];
#pragma unroll
    for (int k = 0; k < STRETCHES; k++) {
        place[k] = halo_place(g, (k * SHARES + share) * 16 + (lane & 7) + (lane >> 4) * 8);
    }
    float sums[TAPS][2][4][4];
#pragma unroll
    for (int t = 0; t < TAPS; t++)
#pragma unroll
        for (int i = 0; i < 32; i++) sums[t][i >> 4][i >> 2 & 3][i & 3] = 0.0f;

    int index = blockIdx.x;
    Tile tile = tile_at(g, index);
    look(tile);
    keep(tile);
    __syncthreads();
    load(tile, 0);
    __syncthreads();  // the places are read
    if (index + (int)gridDim.x < count) {
        tile = tile_at(g, index + gridDim.x);
        look(tile);
        keep(tile);
    }
    for (int which = 0; index < count; index += gridDim.x, which ^= 1) {
        const int next = index + gridDim.x, after = next + gridDim.x;
        copies_wait();
        __syncthreads();  // this tile is there, the places are those of the next, and the tile before is read
        if (next < count) load(tile, which ^ 1);
        if (after < count) look(tile = tile_at(g, after));
        const bf16 *const staged = halo + which * buffer, *const rows = staged + voxels * CHANNELS;
#pragma unroll
        for (int k = 0; k < STRETCHES; k++) {
            unsigned b[2][4];
#pragma unroll
            for (int n = 0; n < 2; n++) {
                load_transposed(b[n], rows + piece32((k * SHARES + share) * 16 + (lane & 15), 2 * n + (lane >> 4)));
            }
#pragma unroll
            for (int t = 0; t < TAPS; t++) {
                const int tap = group * TAPS + t;
                if (tap >= g.taps) continue;  // the whole warp
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    unsigned a[4];
                    load_transposed(a, staged + piece32(place[k] + g.offset[tap], 2 * m + (lane >> 3 & 1)));
#pragma unroll
                    for (int n = 0; n < 4; n++) mma(sums[t][m][n], a, b[n >> 1][2 * (n & 1)], b[n >> 1][2 * (n & 1) + 1]);
                }
            }
        }
        __syncthreads();  // the places are read
        if (after < count) keep(tile);
    }
#pragma unroll
    for (int t = 0; t < TAPS; t++) {
        const int tap = group * TAPS + t;
        if (tap >= g.taps) continue;
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const int in = from + (i >> 4) * 16 + (i >> 1 & 1) * 8 + (lane >> 2);
            const int out = to + (i >> 2 & 3) * 8 + (lane & 3) * 2 + (i & 1);
            const long long line = ((long long)(blockIdx.x * SHARES + share) * g.taps + tap) * g.in_padded + in;
            partial[line * g.out_padded + out] = sums[t][i >> 4][i >> 2 & 3][i & 3];
        }
    }
}

/// Up to 27 taps: grid (splits, in_padded / 32, out_padded / 32), 288 threads; no more splits than tiles. Shared memory: twice the
/// halo and 64 rows, and where voxels lie.
BUDGET(conv3d_weight_27, 184, 101376);
extern "C" __global__ void __launch_bounds__(288)
conv3d_weight_27(const Conv g, const Joined<const bf16> x, const int* neighbours, const bf16* dy, float* partial) {
    conv3d_weight<3, 9, 1>(g, Stored<bf16>{x}, neighbours, dy, partial);
}

BUDGET(conv3d_weight_27_f32, 184, 101376);
extern "C" __global__ void __launch_bounds__(288)
conv3d_weight_27_f32(const Conv g, const Joined<const float> x, const int* neighbours, const float* dy, float* partial) {
    conv3d_weight<3, 9, 1>(g, Stored<float>{x}, neighbours, dy, partial);
}

BUDGET(conv3d_weight_27_normed, 184, 101376);
extern "C" __global__ void __launch_bounds__(288)
conv3d_weight_27_normed(const Conv g, const bf16* x, const Normed norm, const int* neighbours, const bf16* dy, float* partial) {
    conv3d_weight<3, 9, 1>(g, OnLoad{x, norm, {}, {}, {}}, neighbours, dy, partial);
}

/// One tap: the same grid, 128 threads, four partial sums per block.
BUDGET(conv3d_weight_1, 96, 101376);
extern "C" __global__ void __launch_bounds__(128)
conv3d_weight_1(const Conv g, const Joined<const bf16> x, const int* neighbours, const bf16* dy, float* partial) {
    conv3d_weight<1, 1, 4>(g, Stored<bf16>{x}, neighbours, dy, partial);
}

BUDGET(conv3d_weight_1_f32, 96, 101376);
extern "C" __global__ void __launch_bounds__(128)
conv3d_weight_1_f32(const Conv g, const Joined<const float> x, const int* neighbours, const float* dy, float* partial) {
    conv3d_weight<1, 1, 4>(g, Stored<float>{x}, neighbours, dy, partial);
}

/// dw = the partial sums, added in a fixed order, in the layout of the file: a block for 32 values, by 8 warps.
BUDGET(conv3d_weight_sum, 48, 1024);
extern "C" __global__ void __launch_bounds__(256)
conv3d_weight_sum(const Pack p, const float* partial, int splits, float* dw) {
    SHARED(float, sums);  // [8 warps][32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, i = blockIdx.x * 32 + lane;
    const int out = i % p.out, in = i / p.out % p.in, tap = i / p.out / p.in;
    const bool exists = tap < p.taps;
    float sum = 0.0f;
    for (int s = warp; exists && s < splits; s += 8) {
        sum += partial[(((long long)s * p.taps + tap) * p.in_padded + in) * p.out_padded + out];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp || !exists) return;
    sum = 0.0f;
    for (int w = 0; w < 8; w++) sum += sums[w * 32 + lane];
    const int line = p.turned ? in * p.out + out : out * p.in + in;
    dw[(long long)line * p.file_taps + p.source[tap]] = sum;
}

/// Sums over slices of rows of `[rows][c]`: grid (slices, 1, 1 for each 256 groups of channels), 256 threads, partial
/// `[slices][c]`.
template <int W, class E>
__device__ inline void sum_rows(const E* x, long long rows, int c, int slice, float* partial) {
    const RowSums<W> at(c);
    const long long first = (long long)blockIdx.x * slice, last = first + slice < rows ? first + slice : rows;
    float own[1][W] = {};
    for (long long row = first + at.row; at.active() && row < last; row += at.rows) {
        float v[W];
        load(x + row * c + at.channel(), v);
#pragma unroll
        for (int k = 0; k < W; k++) own[0][k] += v[k];
    }
    at.add(own, [&](int, int channel, float sum) { partial[(long long)blockIdx.x * c + channel] = sum; });
}

BUDGET(conv3d_bias, 48, 8192);
extern "C" __global__ void __launch_bounds__(256)
conv3d_bias(const bf16* x, long long rows, int c, int slice, float* partial) {
    wide_rows<bf16>(c, [&](auto w) { sum_rows<w.value>(x, rows, c, slice, partial); });
}

BUDGET(conv3d_bias_f32, 48, 4096);
extern "C" __global__ void __launch_bounds__(256)
conv3d_bias_f32(const float* x, long long rows, int c, int slice, float* partial) {
    wide_rows<float>(c, [&](auto w) { sum_rows<w.value>(x, rows, c, slice, partial); });
}

/// The slices in order.
BUDGET(conv3d_bias_fold, 40, 0);
extern "C" __global__ void __launch_bounds__(256)
conv3d_bias_fold(const float* partial, int slices, int c, float* db) {
    fold_slices(partial, slices, c, db);
}

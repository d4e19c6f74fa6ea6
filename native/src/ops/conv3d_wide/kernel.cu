// 3^3 convolution with stride 1 of many channels on Hopper: the contract of ops/conv3d, for input channels in multiples of 64 and
// an even number of output channels. It serves the middle levels, as a plain product of matrices: 128 voxels x 128 output channels,
// 64 summed values (64 channels of one tap) at a time in three buffers, so that two are on their way while one is multiplied.
//
// Both factors lie in shared memory as wgmma takes them without swizzle: per 8 channels the rows one after the other, 16 bytes
// each. The pieces of the voxels are 64 bytes apart from a multiple of 128, so that the two halves of a 32-byte sector are
// written to different banks.
#include "device.cuh"

constexpr int ROWS = 128, COLUMNS = 128, DEPTH = 64, PIECES = DEPTH / 8, BUFFERS = 3;
constexpr int ALONG_A = ROWS * 16 + 64, ALONG_B = COLUMNS * 16;          // bytes from a piece of 8 channels to the next
constexpr int BUFFER = (ALONG_A + ALONG_B) * PIECES;                     // bytes of both factors

struct Wide {
    int blocks, side[3];
    int c_in, c_out;  // c_out in memory; blockIdx.y takes 128 of them
};

/// Weights as the kernel reads them: `[c_out / 128][27 taps][c_in / 64][8 pieces][128][8]`, zeros beyond the channels; from
/// `[out][in][27]`, or `[in][out][27]` and turned about, as for the gradient of x. Any grid of 256 threads.
BUDGET(conv3d_wide_pack, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
conv3d_wide_pack(const float* weights, int c_in, int c_out, int turned, bf16* packed) {
    const long long values = (long long)((c_out + COLUMNS - 1) / COLUMNS) * COLUMNS * 27 * c_in;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < values; i += gridDim.x * 256LL) {
        const int column = (int)(i / 8 % COLUMNS), piece = (int)(i / 8 / COLUMNS % PIECES);
        const int chunk = (int)(i / COLUMNS / DEPTH % (c_in / DEPTH)), tap = (int)(i / COLUMNS / c_in % 27);
        const int out = (int)(i / COLUMNS / c_in / 27) * COLUMNS + column, in = chunk * DEPTH + piece * 8 + (int)(i % 8);
        const long long line = turned ? (long long)in * c_out + out : (long long)out * c_in + in;
        packed[i] = out < c_out ? to_bf16(weights[line * 27 + (turned ? 26 - tap : tap)]) : (bf16)0;
    }
}

/// y = conv(x) + bias. Grid (voxels / 128, c_out / 128), 256 threads: each four warps take 64 voxels.
BUDGET(conv3d_wide, 128, 99840);
extern "C" __global__ void __launch_bounds__(256)
conv3d_wide(const Wide g, const bf16* x, const int* neighbours, const bf16* weights, const float* bias, bf16* y) {
    SHARED(bf16, buffers);
    const int volume = g.side[0] * g.side[1] * g.side[2], chunks = g.c_in / DEPTH, steps = 27 * chunks;
    const long long rows = (long long)g.blocks * volume, first = (long long)blockIdx.x * ROWS;
    // Of the voxels each thread loads half of one, every second piece of eight channels.
    const int mine = threadIdx.x / 2, half = threadIdx.x % 2;
    const bool exists = first + mine < rows;
    const int block = exists ? (int)((first + mine) / volume) : 0, in = exists ? (int)((first + mine) % volume) : 0;
    const int at_z = in / (g.side[1] * g.side[2]), at_y = in / g.side[2] % g.side[1], at_x = in % g.side[2];
    const bf16* const factor = weights + (long long)blockIdx.y * steps * COLUMNS * DEPTH;

    auto load = [&](int step) {
        bf16* const a = buffers + step % BUFFERS * (BUFFER / 2);
        bf16* const b = a + ALONG_A * PIECES / 2;
        const int tap = step / chunks, channel = step % chunks * DEPTH;
        const int z = at_z + tap / 9 - 1, yy = at_y + tap / 3 % 3 - 1, xx = at_x + tap % 3 - 1;
        const int nz = z < 0 ? 0 : z < g.side[0] ? 1 : 2, ny = yy < 0 ? 0 : yy < g.side[1] ? 1 : 2;
        const int nx = xx < 0 ? 0 : xx < g.side[2] ? 1 : 2;
        const int source = exists ? neighbours[block * 27 + (nz * 3 + ny) * 3 + nx] : -1;
        const int place = ((z - (nz - 1) * g.side[0]) * g.side[1] + yy - (ny - 1) * g.side[1]) * g.side[2] + xx - (nx - 1) * g.side[2];
        const bool seen = source >= 0;
        const bf16* const from = seen ? x + ((long long)source * volume + place) * g.c_in + channel : x;
#pragma unroll
        for (int i = 0; i < PIECES / 2; i++) {
            const int piece = 2 * i + half;
            copy16(a + piece * (ALONG_A / 2) + mine * 8, seen ? from + piece * 8 : x, seen);
        }
        const bf16* const tile = factor + (long long)step * COLUMNS * DEPTH;
#pragma unroll
        for (int i = 0; i < COLUMNS * PIECES / 256; i++) {
            const int piece = threadIdx.x + 256 * i;
            copy16(b + piece * 8, tile + piece * 8, true);
        }
    };
    load(0);
    copies_commit();
    load(1);
    copies_commit();
    float sums[64];
#pragma unroll
    for (int i = 0; i < 64; i++) sums[i] = 0.0f;
    for (int step = 0; step < steps; step++) {
        copies_wait_but_one();
        show_to_wgmma();
        __syncthreads();  // the step is there for all, and all have read the one before
        if (step + 2 < steps) load(step + 2);
        copies_commit();
        const bf16* const a = buffers + step % BUFFERS * (BUFFER / 2) + threadIdx.x / 128 * 64 * 8;
        const bf16* const b = buffers + step % BUFFERS * (BUFFER / 2) + ALONG_A * PIECES / 2;
        wgmma_begin();
#pragma unroll
        for (int piece = 0; piece < PIECES; piece += 2) {
            wgmma128(sums, matrix_at(a + piece * (ALONG_A / 2), ALONG_A, 128), matrix_at(b + piece * (ALONG_B / 2), ALONG_B, 128));
        }
        wgmma_end();
    }
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const long long row = first + threadIdx.x / 32 * 16 + (lane >> 2) + 8 * h;
        if (row >= rows) continue;
#pragma unroll
        for (int n = 0; n < 16; n++) {
            const int c = blockIdx.y * COLUMNS + 8 * n + 2 * (lane & 3);
            if (c >= g.c_out) continue;
            const float low = sums[4 * n + 2 * h] + (bias ? bias[c] : 0.0f);
            const float high = sums[4 * n + 2 * h + 1] + (bias ? bias[c + 1] : 0.0f);
            store_pair(y + row * g.c_out + c, low, high);
        }
    }
}

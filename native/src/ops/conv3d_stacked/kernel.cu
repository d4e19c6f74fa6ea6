// 3^3 convolution with stride 1 of few channels on Hopper: the contract of ops/conv3d, for 32 or 64 input channels, an even
// number of output channels, and blocks whose sides are multiples of 8 (y) and 16 (x). It serves the two finest levels, where most of the work is.
//
// wgmma reads both factors from shared memory, and with 32 columns that port, not the tensor core, is the limit. So the
// three taps along z are stacked: one pass over an input plane adds to three output planes, 96 columns at a time. The
// block walks z; when a plane has been read, the output plane behind it is done and the sums move up.
//
// No factor is copied or turned: 8 channels of a voxel are 16 bytes, the voxels of a plane follow each other per 8 channels,
// so that eight neighbours along x are the 128 bytes that wgmma takes as one piece, and a tap is an offset.
#include "device.cuh"

constexpr int TILE_Y = 8, TILE_X = 16;  // output voxels of a plane: two groups of four warps, each 8 x 8
constexpr int PLANE = (TILE_Y + 2) * (TILE_X + 2);
constexpr int COLUMNS = 96;             // 32 output channels for each tap along z
constexpr int PIECE = 8;                // channels

struct Stacked {
    int blocks, side[3];
    int c_in, c_out;  // c_out in memory; blockIdx.y takes 32 of them
};

/// Bytes of shared memory: 9 taps of weights, two planes.
__device__ inline int stacked_bytes(const Stacked& g) { return (9 * COLUMNS + 2 * PLANE) * g.c_in * 2; }

/// Weights as the kernel reads them: `[c_out / 32][9 taps y, x][c_in / 8][3 taps z][32][8]`, zeros beyond the channels; from
/// `[out][in][27]`, or `[in][out][27]` and turned about, as for the gradient of x. Any grid of 256 threads.
BUDGET(conv3d_stacked_pack, 48, 0);
extern "C" __global__ void __launch_bounds__(256)
conv3d_stacked_pack(const float* weights, int c_in, int c_out, int turned, bf16* packed) {
    const long long values = (long long)((c_out + 31) / 32) * 9 * COLUMNS * c_in;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < values; i += gridDim.x * 256LL) {
        const int n = (int)(i / PIECE % COLUMNS), piece = (int)(i / PIECE / COLUMNS % (c_in / PIECE));
        const int plane_tap = (int)(i / COLUMNS / c_in % 9), out = (int)(i / COLUMNS / c_in / 9) * 32 + n % 32;
        const int in = piece * PIECE + (int)(i % PIECE), tap = n / 32 * 9 + plane_tap;
        const long long line = turned ? (long long)in * c_out + out : (long long)out * c_in + in;
        packed[i] = out < c_out ? to_bf16(weights[line * 27 + (turned ? 26 - tap : tap)]) : (bf16)0;
    }
}

/// Loads the voxels of input plane z (-1 .. side) around a tile; hidden neighbours are zeros.
__device__ inline void stage_plane(bf16* to, const Stacked& g, const bf16* x, const int* neighbours, int block, int z,
                                   int first_y, int first_x) {
    const int pieces = g.c_in / PIECE, at_z = z < 0 ? 0 : z < g.side[0] ? 1 : 2;
    const long long size = (long long)g.side[0] * g.side[1] * g.side[2];
    for (int i = threadIdx.x; i < PLANE * pieces; i += 256) {
        const int v = i / pieces, piece = i % pieces;
        const int y = first_y - 1 + v / (TILE_X + 2), xx = first_x - 1 + v % (TILE_X + 2);
        const int at_y = y < 0 ? 0 : y < g.side[1] ? 1 : 2, at_x = xx < 0 ? 0 : xx < g.side[2] ? 1 : 2;
        const int source = neighbours[block * 27 + (at_z * 3 + at_y) * 3 + at_x];
        const int in_z = z - (at_z - 1) * g.side[0], in_y = y - (at_y - 1) * g.side[1], in_x = xx - (at_x - 1) * g.side[2];
        const long long voxel = source * size + ((long long)in_z * g.side[1] + in_y) * g.side[2] + in_x;
        const bool seen = source >= 0;
        copy16(to + (piece * PLANE + v) * PIECE, seen ? x + voxel * g.c_in + piece * PIECE : x, seen);
    }
}

/// y = conv(x) + bias. Grid (blocks * tiles of a plane, c_out / 32), 256 threads.
BUDGET(conv3d_stacked, 128, 156672);
extern "C" __global__ void __launch_bounds__(256)
conv3d_stacked(const Stacked g, const bf16* x, const int* neighbours, const bf16* weights, const float* bias, bf16* y) {
    SHARED(bf16, taps);
    bf16* const planes = taps + 9 * COLUMNS * g.c_in;
    const int across = g.side[2] / TILE_X, tiles = g.side[1] / TILE_Y * across;
    const int block = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const int first_y = tile / across * TILE_Y, first_x = tile % across * TILE_X;
    const int lane = threadIdx.x % 32, group = threadIdx.x / 128;
    const bf16* const mine = weights + (long long)blockIdx.y * 9 * COLUMNS * g.c_in;
    for (int i = threadIdx.x; i < 9 * COLUMNS * g.c_in / PIECE; i += 256) copy16(taps + i * PIECE, mine + i * PIECE, true);
    stage_plane(planes, g, x, neighbours, block, -1, first_y, first_x);

    float sums[48];  // of planes z + 1, z, z - 1: 16 of each
#pragma unroll
    for (int i = 0; i < 48; i++) sums[i] = 0.0f;
    for (int z = -1, buffer = 0; z <= g.side[0]; z++, buffer ^= 1) {
        copies_wait();
        show_to_wgmma();
        __syncthreads();  // plane z is there for all, and all have read the plane before
        if (z < g.side[0]) {
            stage_plane(planes + (buffer ^ 1) * PLANE * g.c_in, g, x, neighbours, block, z + 1, first_y, first_x);
        }
        const bf16* const plane = planes + buffer * PLANE * g.c_in;
        wgmma_begin();
        for (int tap = 0; tap < 9; tap++) {
            const int voxel = tap / 3 * (TILE_X + 2) + tap % 3 + group * 8;
            for (int piece = 0; piece < g.c_in / PIECE; piece += 2) {
                const bf16* const a = plane + (piece * PLANE + voxel) * PIECE;
                const bf16* const b = taps + (tap * (g.c_in / PIECE) + piece) * COLUMNS * PIECE;
                wgmma96(sums, matrix_at(a, PLANE * 16, (TILE_X + 2) * 16), matrix_at(b, COLUMNS * 16, 128));
            }
        }
        wgmma_end();
        if (z > 0) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = threadIdx.x % 128 / 32 * 16 + (lane >> 2) + 8 * h;
                const int at_y = first_y + row / 8, at_x = first_x + group * 8 + row % 8;
                const long long voxel = (((long long)block * g.side[0] + z - 1) * g.side[1] + at_y) * g.side[2] + at_x;
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const int c = blockIdx.y * 32 + 8 * n + 2 * (lane & 3);
                    if (c >= g.c_out) continue;
                    const float low = sums[32 + 4 * n + 2 * h] + (bias ? bias[c] : 0.0f);
                    const float high = sums[32 + 4 * n + 2 * h + 1] + (bias ? bias[c + 1] : 0.0f);
                    store_pair(y + voxel * g.c_out + c, low, high);
                }
            }
        }
#pragma unroll
        for (int i = 47; i >= 0; i--) sums[i] = i < 16 ? 0.0f : sums[i - 16];
    }
}

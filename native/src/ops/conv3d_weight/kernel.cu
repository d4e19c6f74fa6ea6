// Weight gradient of 3^3 convolutions with stride 1 on Hopper: the contract of ops/conv3d, for channels in multiples of 8.
//
// P[tap][m][n] = sum over voxels v of own[v][m] around[v + tap][n]: own is dy and around x, or the other way about, which turns
// the taps (v + tap is as good a name for the pair as v). A block takes 64 channels of own and, of the list (tap along x, channel
// of around), N; its three groups of four warps are the taps along z, the three along y are side by side in the columns. So each
// product is 64 x 3N, and the 9 x 64 x N sums stay in registers while the block walks its tiles, plane by plane: one plane of
// around meets three of own.
//
// Voxels are what is summed over, and in memory they come as rows of channels: both factors lie in shared memory as wgmma takes
// them turned and without swizzle, per 8 channels the voxels one after the other, 16 bytes each. A tap along y is a row, the one
// along x is in what was loaded, so nothing is computed for a halo: rows of tiles may be of many small blocks.
#include "device.cuh"

constexpr int OWN = 64, THREADS = 384, SLOTS = 4;  // SLOTS: planes of own, of which three are read while one is on its way

struct Planes {
    int blocks, side[3];
    int tile[2], parts;  // rows and columns of a tile in `parts` blocks
    int width;           // parts * tile[1], up to a multiple of 8; tile[0] * width is one of 16
    int own, around;     // channels
};

__device__ inline int planes_tiles(const Planes& g, int d) { return (g.side[1 + d] + g.tile[d] - 1) / g.tile[d]; }

__device__ inline int tile_count(const Planes& g) {
    return (g.blocks + g.parts - 1) / g.parts * planes_tiles(g, 0) * planes_tiles(g, 1);
}

/// Bytes of shared memory for N channels of around: four planes of own, two of around, a table of voxels. Pieces of 8 channels
/// are a voxel further apart than they need, so that those of a voxel are written to different banks.
__device__ inline int planes_bytes(const Planes& g, int n) {
    const int rows = g.tile[0] + 2;
    return (SLOTS * OWN * (g.tile[0] * g.width + 1) + 2 * rows * n * (g.width + 1)) * 2 + rows * g.width * 4;
}

/// partial `[gridDim.x][27][own][around]`. Grid (splits, 3 around / N, own / 64), 384 threads.
template <int N>
__device__ inline void weight_of_planes(const Planes& g, const bf16* own, const bf16* around, const int* neighbours, float* partial) {
    constexpr int PIECES = N / 8;
    SHARED(bf16, slots);
    const int voxels = g.tile[0] * g.width, staged = (g.tile[0] + 2) * g.width;
    const int own_pitch = (voxels + 1) * 8, pitch = (g.width + 1) * 8, slot = OWN / 8 * own_pitch;
    const int row_pitch = PIECES * pitch, buffer = (g.tile[0] + 2) * row_pitch;
    bf16* const buffers = slots + SLOTS * slot;
    int* const places = reinterpret_cast<int*>(buffers + 2 * buffer);  // of each staged voxel: part, row, column
    for (int v = threadIdx.x; v < staged; v += THREADS) {
        const int column = v % g.width;
        places[v] = column / g.tile[1] << 16 | v / g.width << 8 | column % g.tile[1];
    }
    __syncthreads();

    const int down = planes_tiles(g, 0), across = planes_tiles(g, 1), walk = g.side[0] + 2;
    const int mine = (tile_count(g) - (int)blockIdx.x + (int)gridDim.x - 1) / (int)gridDim.x, steps = mine * walk;
    const int piece_own = threadIdx.x % 8, channel_own = blockIdx.z * OWN + piece_own * 8;
    const int piece = threadIdx.x % PIECES, listed = blockIdx.y * PIECES + piece, each = g.around / 8;
    const int tap_x = listed / each, channel = listed % each * 8;

    // Step t of a tile brings plane t of own and plane t - 1 of around.
    auto load = [&](int step) {
        const int t = step % walk, index = blockIdx.x + step / walk * gridDim.x;
        const int first = index / (down * across) * g.parts, first_y = index / across % down * g.tile[0];
        const int first_x = index % across * g.tile[1];
        bf16* const to_own = slots + step % SLOTS * slot + piece_own * own_pitch;
        for (int v = threadIdx.x / 8; t < g.side[0] && v < voxels; v += THREADS / 8) {
            const int place = places[v], part = place >> 16, block = first + part;
            const int y = first_y + (place >> 8 & 255), x = first_x + (place & 255);
            const bool ok = part < g.parts && block < g.blocks && y < g.side[1] && x < g.side[2] && channel_own < g.own;
            const long long voxel = (((long long)block * g.side[0] + t) * g.side[1] + y) * g.side[2] + x;
            copy16(to_own + v * 8, ok ? own + voxel * g.own + channel_own : own, ok);
        }
        bf16* const to = buffers + step % 2 * buffer + piece * pitch;
        const int z = t - 1, nz = z < 0 ? 0 : z < g.side[0] ? 1 : 2, from_z = z - (nz - 1) * g.side[0];
        for (int v = threadIdx.x / PIECES; v < staged; v += THREADS / PIECES) {
            const int place = places[v], part = place >> 16, block = first + part, row = place >> 8 & 255;
            const int y = first_y + row - 1, x = first_x + (place & 255) + tap_x - 1;
            const int ny = y < 0 ? 0 : y < g.side[1] ? 1 : 2, nx = x < 0 ? 0 : x < g.side[2] ? 1 : 2;
            const bool ok = part < g.parts && block < g.blocks && y <= g.side[1] && x <= g.side[2] && tap_x < 3;
            const int source = ok ? neighbours[block * 27 + (nz * 3 + ny) * 3 + nx] : -1;
            const long long in_y = ((long long)source * g.side[0] + from_z) * g.side[1] + y - (ny - 1) * g.side[1];
            const long long voxel = in_y * g.side[2] + x - (nx - 1) * g.side[2];
            copy16(to + row * row_pitch + (v - row * g.width) * 8, source >= 0 ? around + voxel * g.around + channel : around, source >= 0);
        }
    };
    float sums[N * 3 / 2];
#pragma unroll
    for (int i = 0; i < N * 3 / 2; i++) sums[i] = 0.0f;
    // The same in all lanes, as the compiler has to see: where lanes may part it waits after every product.
    const int tap_z = __shfl_sync(0xffffffffu, (int)(threadIdx.x / 128), 0);
    if (steps > 0) load(0);
    for (int step = 0; step < steps; step++) {
        copies_wait();
        show_to_wgmma();
        __syncthreads();  // the planes of this step are there for all, and all have read those of the step before
        const int plane = step % walk - tap_z;
        wgmma_begin();
        if (plane >= 0 && plane < g.side[0]) {
            const bf16* a = slots + (step - tap_z) % SLOTS * slot;
            const bf16* b = buffers + step % 2 * buffer;
            int column = 0;
            // From 8 voxels to the next, which may begin a row.
            const auto next = [&] {
                column += 8;
                const int further = column < g.width ? 64 : row_pitch - (g.width - 8) * 8;
                if (column == g.width) column = 0;
                return further;
            };
            for (int v = 0; v < voxels; v += 16) {
                const int along = next();
                wgmma_turned(sums, turned_at(a + v * 8, 128, own_pitch * 2), turned_at(b, along * 2, pitch * 2));
                b += along + next();
            }
        }
        if (step + 1 < steps) load(step + 1);
        wgmma_end();
    }
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int m = blockIdx.z * OWN + threadIdx.x % 128 / 32 * 16 + (lane >> 2) + 8 * h;
        if (m >= g.own) continue;
#pragma unroll
        for (int i = 0; i < 3 * PIECES; i++) {
            const int at = blockIdx.y * PIECES + i % PIECES, tap = tap_z * 9 + i / PIECES * 3 + at / each;
            if (at >= 3 * each) continue;
            const long long line = ((long long)blockIdx.x * 27 + tap) * g.own + m;
            store_pair(partial + line * g.around + at % each * 8 + 2 * (lane & 3), sums[4 * i + 2 * h], sums[4 * i + 2 * h + 1]);
        }
    }
}

BUDGET(conv3d_weight_planes_64, 160, 163840);
extern "C" __global__ void __launch_bounds__(384)
conv3d_weight_planes_64(const Planes g, const bf16* own, const bf16* around, const int* neighbours, float* partial) {
    weight_of_planes<64>(g, own, around, neighbours, partial);
}

BUDGET(conv3d_weight_planes_32, 96, 116736);
extern "C" __global__ void __launch_bounds__(384)
conv3d_weight_planes_32(const Planes g, const bf16* own, const bf16* around, const int* neighbours, float* partial) {
    weight_of_planes<32>(g, own, around, neighbours, partial);
}

// The weight gradient on wgmma against a loop nest, over the masks of the shape table, with tiles that divide nothing evenly.
#include KERNEL
#include "check.h"

/// P[tap][m][n] of kernel.cu.
static std::vector<double> products(const check::Grid& grid, const Planes& g, const std::vector<bf16>& own, const std::vector<bf16>& around) {
    const int volume = g.side[0] * g.side[1] * g.side[2];
    std::vector<double> sums((size_t)27 * g.own * g.around);
    for (int i = 0; i < grid.blocks * volume * 27; i++) {
        const int tap = i % 27, v = i / 27 % volume, block = i / 27 / volume, step[3] = {tap / 9 - 1, tap / 3 % 3 - 1, tap % 3 - 1};
        const int at[3] = {v / (g.side[1] * g.side[2]), v / g.side[2] % g.side[1], v % g.side[2]};
        int neighbour = 0, from = 0;
        for (int d = 0; d < 3; d++) {
            const int p = at[d] + step[d], where = p < 0 ? 0 : p < g.side[d] ? 1 : 2;
            neighbour = neighbour * 3 + where;
            from = from * g.side[d] + p - (where - 1) * g.side[d];
        }
        const int source = grid.neighbours[block * 27 + neighbour];
        if (source < 0) continue;
        for (int m = 0; m < g.own; m++)
            for (int n = 0; n < g.around; n++) {
                sums[((size_t)tap * g.own + m) * g.around + n] +=
                    check::value(own[((size_t)block * volume + v) * g.own + m]) * check::value(around[((size_t)source * volume + from) * g.around + n]);
            }
    }
    return sums;
}

static void run(const check::Mask& mask, const int (&side)[3], const int (&tile)[2], int parts, int c_own, int c_around, int wide) {
    check::what = "weight gradient, side " + std::to_string(side[0]) + " " + std::to_string(side[1]) + " " + std::to_string(side[2]) +
                  ", channels " + std::to_string(c_own) + " and " + std::to_string(c_around) + " by " + std::to_string(wide) + ", " + mask.name;
    const check::Grid grid(mask.samples, mask.dims, mask.visible);
    const int width = (parts * tile[1] + 7) / 8 * 8;
    const Planes g{grid.blocks, {side[0], side[1], side[2]}, {tile[0], tile[1]}, parts, width, c_own, c_around};
    if (tile[0] * width % 16) check::fail("a tile is not of stretches of 16 voxels");
    const size_t rows = (size_t)grid.blocks * side[0] * side[1] * side[2], values = (size_t)27 * c_own * c_around;
    const auto own = check::noise16(rows * c_own), around = check::noise16(rows * c_around);
    const int splits = std::min(2, tile_count(g));
    auto partial = check::unfilled(splits * values);
    const dim3 blocks{(unsigned)splits, (unsigned)(3 * c_around + wide - 1) / wide, (unsigned)(c_own + OWN - 1) / OWN};
    check::same_under_all_schedules(
        [&] {
            const int bytes = planes_bytes(g, wide), *neighbours = grid.neighbours.data();
            if (wide == 64) RUN(conv3d_weight_planes_64, blocks, THREADS, bytes, g, own.data(), around.data(), neighbours, partial.data());
            else RUN(conv3d_weight_planes_32, blocks, THREADS, bytes, g, own.data(), around.data(), neighbours, partial.data());
        },
        partial);
    std::vector<float> sums(values);
    for (size_t i = 0; i < partial.size(); i++) sums[i % values] += partial[i];
    check::close("sums", sums, products(grid, g, own, around), check::SUMMED);
}

int main() {
    run(check::MASKS[0], {3, 5, 20}, {3, 8}, 2, 64, 64, 64);
    run(check::MASKS[1], {2, 4, 4}, {4, 4}, 3, 40, 64, 64);
    run(check::MASKS[2], {2, 5, 3}, {2, 3}, 5, 72, 32, 32);
    run(check::MASKS[2], {1, 1, 1}, {1, 1}, 16, 32, 40, 32);
    run(check::MASKS[3], {4, 6, 12}, {4, 12}, 1, 64, 40, 64);
    return check::report("conv3d_weight");
}

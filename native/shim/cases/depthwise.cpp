// The kernels of ops/depthwise against a loop over every pair of voxels that a tap joins.
#include KERNEL
#include "check.h"

template <class E> static void run(const check::Mask& mask, int (&&side)[3], int c, int stride) {
    const check::Grid grid(mask.samples, mask.dims, mask.visible);
    check::what = check::name_of<E>() + "depthwise stride " + std::to_string(stride) + ", side " + std::to_string(side[0]) + " " +
                  std::to_string(side[1]) + " " + std::to_string(side[2]) + ", " + std::to_string(c) + " channels, " + mask.name;
    Depthwise s{grid.blocks, c, stride, {}, {}};
    int fine_size = 1, coarse_size = 1;
    for (int d = 0; d < 3; d++) {
        s.fine[d] = side[d], s.coarse[d] = (side[d] + stride - 1) / stride;
        fine_size *= s.fine[d], coarse_size *= s.coarse[d];
    }
    const auto fine = check::noise_of<E>((size_t)grid.blocks * fine_size * c), coarse = check::noise_of<E>((size_t)grid.blocks * coarse_size * c);
    const auto weight = check::noise(27 * c), bias = check::noise(c);
    const int lines = stride == 1 ? side[2] : 1;  // rows of what slices are made of
    const int slice = 19, slices = (grid.blocks * coarse_size / lines + slice - 1) / slice;
    auto down = check::unfilled_of<E>(coarse.size()), up = check::unfilled_of<E>(fine.size());
    auto dweight = check::unfilled(27 * c);
    const int* neighbours = grid.neighbours.data();
    check::same_under_all_schedules(
        [&] {
            auto partial = check::unfilled((size_t)slices * 27 * c);
            auto packed = check::unfilled(27 * c);
            const float *by = packed.data(), *add = bias.data();
            const dim3 all{(unsigned)slices, stride == 1 ? 3u : 27u, check::row_groups<E>(c)};
            const unsigned bytes = check::row_bytes<E>(c);
            RUN(depthwise_pack, dim3{(unsigned)(27 * c + 255) / 256}, 256, 0, weight.data(), c, packed.data());
            if (stride == 1) {
                RUN_OF(E, depthwise_along, dim3{2}, 256, 0, s, 0, fine.data(), neighbours, by, add, down.data());
                RUN_OF(E, depthwise_along, dim3{3}, 256, 0, s, 1, coarse.data(), neighbours, by, nullptr, up.data());
                RUN_OF(E, depthwise_weight_lines, all, 256, 3 * bytes, s, fine.data(), coarse.data(), neighbours, slice, partial.data());
            } else {
                RUN_OF(E, depthwise_down, dim3{2}, 256, 0, s, fine.data(), neighbours, by, add, down.data());
                RUN_OF(E, depthwise_up, dim3{3}, 256, 0, s, coarse.data(), neighbours, by, nullptr, up.data());
                RUN_OF(E, depthwise_weight, all, 256, bytes, s, fine.data(), coarse.data(), neighbours, slice, partial.data());
            }
            RUN(depthwise_weight_fold, check::folding(27 * c), 256, 0, partial.data(), slices, c, dweight.data());
        },
        down, up, dweight);
    std::vector<double> want_down(coarse.size()), want_up(fine.size()), want_w(27 * c);
    for (size_t i = 0; i < want_down.size(); i++) want_down[i] = bias[i % c];
    for (int block = 0; block < grid.blocks; block++)
        for (int v = 0; v < coarse_size; v++)
            for (int t = 0; t < 27; t++) {
                const int o[3] = {v / (s.coarse[1] * s.coarse[2]), v / s.coarse[2] % s.coarse[1], v % s.coarse[2]};
                const int tap[3] = {t / 9, t / 3 % 3, t % 3};
                int neighbour = 0, voxel = 0;
                for (int d = 0; d < 3; d++) {
                    const int p = o[d] * stride + tap[d] - 1;
                    neighbour = neighbour * 3 + 1 + (p >= side[d]) - (p < 0);
                    voxel = voxel * side[d] + (p + side[d]) % side[d];
                }
                const int other = grid.neighbours[block * 27 + neighbour];
                for (int i = 0; i < c && other >= 0; i++) {
                    const size_t f = ((size_t)other * fine_size + voxel) * c + i, g = ((size_t)block * coarse_size + v) * c + i;
                    want_down[g] += (double)weight[i * 27 + t] * number(fine[f]);
                    want_up[f] += (double)weight[i * 27 + t] * number(coarse[g]);
                    want_w[i * 27 + t] += (double)number(fine[f]) * number(coarse[g]);
                }
            }
    check::close("down", down, want_down, check::tolerance_of<E>);
    check::close("up", up, want_up, check::tolerance_of<E>);
    check::close("dweight", dweight, want_w, check::SUMMED);
}

int main() {
    for (const auto& mask : check::MASKS) {
        run<bf16>(mask, {1, 1, 1}, 3, 1);
        run<float>(mask, {3, 2, 3}, 5, 1);
        run<bf16>(mask, {3, 2, 4}, 33, 1);
        run<bf16>(mask, {2, 4, 6}, 5, 2);
        run<float>(mask, {2, 2, 4}, 3, 2);
        run<bf16>(mask, {2, 3, 9}, 24, 1);
        run<float>(mask, {1, 2, 5}, 12, 1);
        run<bf16>(mask, {2, 2, 2}, 16, 2);
    }
    run<bf16>(check::MASKS[0], {3, 5, 2}, 8, 2);  // a side that 2 does not divide: one block per sample
    return check::report("depthwise");
}

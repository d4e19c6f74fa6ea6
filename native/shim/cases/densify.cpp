// The kernels of ops/densify against a walk over blocks.
#include KERNEL
#include "check.h"

template <class E> static void run(const check::Mask& mask, int (&&side)[3], int c) {
    const check::Grid grid(mask.samples, mask.dims, mask.visible);
    check::what = check::name_of<E>() + "densify, side " + std::to_string(side[0]) + " " + std::to_string(side[1]) + " " +
                  std::to_string(side[2]) + ", " + std::to_string(c) + " channels, " + mask.name;
    const int cell_count = mask.samples * mask.dims[0] * mask.dims[1] * mask.dims[2], inside = side[0] * side[1] * side[2];
    std::vector<int> cells(cell_count, -1);
    for (int i = 0, block = 0; i < cell_count; i++) cells[i] = mask.visible(i) ? block++ : -1;
    Volumes s{mask.samples, {}, {}, c, cells.data()};
    for (int d = 0; d < 3; d++) s.dims[d] = mask.dims[d], s.side[d] = side[d];
    const size_t dense_size = (size_t)cell_count * inside * c, size = (size_t)grid.blocks * inside * c;
    const auto x = check::noise_of<E>(size), dy = check::noise_of<E>(dense_size);
    const auto token = check::noise(c);
    const int slice = 21, slices = (cell_count * inside + slice - 1) / slice;
    auto dense = check::unfilled_of<E>(dense_size), zeros = dense, back = check::unfilled_of<E>(size);
    auto dtoken = check::unfilled(c);
    check::same_under_all_schedules(
        [&] {
            auto partial = check::unfilled(slices * c);
            RUN_OF(E, densify_scatter, dim3{2}, 256, 0, s, x.data(), token.data(), dense.data());
            RUN_OF(E, densify_scatter, dim3{1}, 256, 0, s, x.data(), nullptr, zeros.data());
            RUN_OF(E, densify_gather, dim3{3}, 256, 0, s, dy.data(), back.data());
            RUN_OF(E, densify_token, (dim3{(unsigned)slices, 1, check::row_groups<E>(c)}), 256, check::row_bytes<E>(c), s, dy.data(), slice, partial.data());
            RUN(densify_token_fold, check::folding(c), 256, 0, partial.data(), slices, c, dtoken.data());
        },
        dense, zeros, back, dtoken);
    std::vector<double> want, want_zeros(dense_size), want_back(size), want_token(c);
    for (size_t i = 0; i < dense_size; i++) want.push_back(std::is_same_v<E, bf16> ? from_bf16(to_bf16(token[i % c])) : token[i % c]);
    for (size_t i = 0; i < dense_size; i++) want_token[i % c] += number(dy[i]);
    const int cells_each = cell_count / mask.samples;
    for (int cell = 0, block = 0; cell < cell_count; cell++) {
        if (!mask.visible(cell)) continue;
        for (int v = 0; v < inside; v++)
            for (int i = 0; i < c; i++) {
                const int in = cell % cells_each, sample = cell / cells_each;
                const int z = in / (mask.dims[1] * mask.dims[2]) * side[0] + v / (side[1] * side[2]);
                const int y = in / mask.dims[2] % mask.dims[1] * side[1] + v / side[2] % side[1];
                const int xx = in % mask.dims[2] * side[2] + v % side[2];
                const size_t row = (size_t)(sample * mask.dims[0] * side[0] + z) * mask.dims[1] * side[1] + y;
                const size_t at = (row * mask.dims[2] * side[2] + xx) * c + i, from = ((size_t)block * inside + v) * c + i;
                want[at] = want_zeros[at] = number(x[from]);
                want_back[from] = number(dy[at]);
                want_token[i] -= number(dy[at]);
            }
        block++;
    }
    check::close("dense", dense, want, 0);
    check::close("dense without token", zeros, want_zeros, 0);
    check::close("blocks", back, want_back, 0);
    if (grid.blocks < cell_count) check::close("gradient of the token", dtoken, want_token, check::SUMMED);
}

template <class E> static void all() {
    for (const auto& mask : check::MASKS) {
        run<E>(mask, {1, 1, 1}, 1);
        run<E>(mask, {2, 3, 5}, 40);
        run<E>(mask, {4, 4, 4}, 5);
    }
}

int main() {
    all<bf16>();
    all<float>();
    return check::report("densify");
}

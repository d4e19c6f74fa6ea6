// The kernels of ops/lattice against a loop over every pair of voxels that an offset joins.
#include KERNEL
#include "check.h"

template <class E> static void run(int blocks, const int (&side)[3], int c, std::vector<int> offsets, bool inner) {
    const int count = (int)offsets.size();
    check::what = check::name_of<E>() + "lattice, side " + std::to_string(side[0]) + " " + std::to_string(side[1]) + " " +
                  std::to_string(side[2]) + ", " + std::to_string(c) + " channels, " + std::to_string(count) + " offsets";
    const Lattice s{blocks * side[0] * side[1], {side[0], side[1], side[2]}, c, count, inner};
    const size_t coarse = (size_t)blocks * side[0] * side[1] * side[2];
    const auto x = check::noise_of<E>(8 * coarse * c), dy = check::noise_of<E>(coarse * c * count);
    auto y = check::unfilled_of<E>(dy.size()), dx = check::unfilled_of<E>(x.size());
    check::same_under_all_schedules(
        [&] {
            RUN_OF(E, lattice, dim3{2}, 256, 0, s, offsets.data(), x.data(), y.data());
            RUN_OF(E, lattice_grad, dim3{3}, 256, 0, s, offsets.data(), dy.data(), dx.data());
        },
        y, dx);
    std::vector<double> want_y(y.size()), want_dx(dx.size());
    size_t at = 0;
    for (int block = 0; block < blocks; block++)
        for (int z = 0; z < side[0]; z++)
            for (int v = 0; v < side[1]; v++)
                for (int w = 0; w < side[2]; w++, at++)
                    for (int k = 0; k < count; k++) {
                        const int fz = 2 * z + offsets[k] / 4, fy = 2 * v + offsets[k] / 2 % 2, fx = 2 * w + offsets[k] % 2;
                        const size_t from = (((size_t)block * 2 * side[0] + fz) * 2 * side[1] + fy) * 2 * side[2] + fx;
                        for (int i = 0; i < c; i++) {
                            const size_t to = at * c * count + (inner ? i * count + k : k * c + i);
                            want_y[to] = check::value(x[from * c + i]);
                            want_dx[from * c + i] += check::value(dy[to]);
                        }
                    }
    check::close("y", y, want_y, 0);
    check::close("dx", dx, want_dx, check::tolerance_of<E>);
}

int main() {
    run<bf16>(2, {2, 1, 3}, 3, {0, 1, 2, 3, 4, 5, 6, 7}, true);
    run<float>(2, {2, 1, 3}, 3, {0, 1, 2, 3, 4, 5, 6, 7}, false);
    run<float>(1, {1, 2, 5}, 7, {5}, false);
    run<bf16>(1, {3, 2, 1}, 2, {6, 1, 6}, true);  // one offset twice, five not at all
    return check::report("lattice");
}

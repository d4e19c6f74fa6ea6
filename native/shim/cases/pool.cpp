// The kernels of ops/pool against loops over cubes and rows.
#include KERNEL
#include "check.h"

template <class E> static void halves(int blocks, int (&&side)[3], int c) {
    check::what = check::name_of<E>() + "average of cubes, side " + std::to_string(side[0]) + " " + std::to_string(side[1]) +
                  " " + std::to_string(side[2]) + ", " + std::to_string(c) + " channels";
    const Halving s{blocks, {side[0], side[1], side[2]}, c};
    const size_t coarse = (size_t)blocks * side[0] * side[1] * side[2] * c;
    const auto x = check::noise_of<E>(8 * coarse), dy = check::noise_of<E>(coarse);
    auto y = check::unfilled_of<E>(coarse), dx = check::unfilled_of<E>(8 * coarse);
    check::same_under_all_schedules(
        [&] {
            RUN_OF(E, pool_average, dim3{2}, 256, 0, s, x.data(), y.data());
            RUN_OF(E, pool_average_grad, dim3{3}, 256, 0, s, dy.data(), dx.data());
        },
        y, dx);
    std::vector<double> want(coarse), want_dx(8 * coarse);
    size_t at = 0;
    for (int block = 0; block < blocks; block++)
        for (int z = 0; z < 2 * side[0]; z++)
            for (int v = 0; v < 2 * side[1]; v++)
                for (int u = 0; u < 2 * side[2]; u++)
                    for (int i = 0; i < c; i++, at++) {
                        const size_t to = (((size_t)(block * side[0] + z / 2) * side[1] + v / 2) * side[2] + u / 2) * c + i;
                        want[to] += number(x[at]) / 8.0;
                        want_dx[at] = number(dy[to]) / 8.0;
                    }
    check::close("y", y, want, check::tolerance_of<E>);
    check::close("dx", dx, want_dx, check::tolerance_of<E>);
}

template <class E> static void spreads(std::vector<int> starts, int c) {
    check::what = check::name_of<E>() + "gradient of the mean, " + std::to_string(starts.back()) + " rows";
    const int samples = (int)starts.size() - 1;
    const auto dy = check::noise(samples * c);
    auto dx = check::unfilled_of<E>((size_t)starts.back() * c);
    check::same_under_all_schedules(
        [&] { RUN_OF(E, pool_spread, (dim3{2, (unsigned)samples}), 256, 0, dy.data(), starts.data(), c, dx.data()); }, dx);
    std::vector<double> want;
    for (int n = 0; n < samples; n++)
        for (int i = starts[n] * c; i < starts[n + 1] * c; i++) want.push_back(dy[n * c + i % c] / double(starts[n + 1] - starts[n]));
    check::close("dx", dx, want, check::tolerance_of<E>);
}

int main() {
    halves<bf16>(1, {1, 1, 1}, 1), halves<float>(2, {1, 2, 3}, 5), halves<bf16>(3, {2, 1, 4}, 8), halves<float>(1, {3, 2, 2}, 20);
    spreads<bf16>({0, 1}, 3), spreads<float>({0, 4, 30}, 40), spreads<bf16>({0, 100, 300}, 5), spreads<bf16>({0, 7, 60}, 24);
    return check::report("pool");
}

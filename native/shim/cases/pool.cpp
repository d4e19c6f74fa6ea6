// Means of cubes and of samples against f64.
#include "check.h"
#include KERNEL

template <class T> void cubes(int blocks, int z, int y, int x, int c) {
    check::what = "average pooling to " + std::to_string(z) + " " + std::to_string(y) + " " + std::to_string(x);
    const Pool p{blocks, {z, y, x}, c};
    const int n = blocks * z * y * x * c;
    const auto fine = check::noise_of<T>(8 * n), dy = check::noise_of<T>(n);
    auto got = check::unfilled_of<T>(n), back = check::unfilled_of<T>(8 * n);
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, average_pool, dim3{2}, 256, 0, p, fine.data(), got.data());
            RUN_OF(T, average_pool_grad, dim3{1}, 256, 0, p, dy.data(), back.data());
        },
        got, back);
    std::vector<double> want(n), want_back(8 * n);
    for (int b = 0; b < blocks; b++)
        for (int i = 0; i < 2 * z; i++)
            for (int j = 0; j < 2 * y; j++)
                for (int k = 0; k < 2 * x; k++)
                    for (int d = 0; d < c; d++) {
                        const int at = (((b * 2 * z + i) * 2 * y + j) * 2 * x + k) * c + d;
                        const int to = (((b * z + i / 2) * y + j / 2) * x + k / 2) * c + d;
                        want[to] += check::value(fine[at]) / 8;
                        want_back[at] = check::value(dy[to]) / 8;
                    }
    check::close("y", got, want, check::tolerance_of<T>);
    check::close("dx", back, want_back, check::tolerance_of<T>);
}

template <class T> void samples(std::vector<int> rows, int c, int slice) {
    check::what = "global average of " + std::to_string(rows.size()) + " samples, " + std::to_string(c) + " channels";
    std::vector<int> starts{0};
    for (int r : rows) starts.push_back(starts.back() + r);
    const int n = (int)rows.size(), all = starts.back();
    const int slices = (*std::max_element(rows.begin(), rows.end()) + slice - 1) / slice;
    const auto x = check::noise_of<T>(all * c);
    const auto dy = check::noise(n * c);
    auto y = check::unfilled(n * c), partial = check::unfilled(slices * n * c);
    auto dx = check::unfilled_of<T>(all * c);
    const dim3 grid{(unsigned)slices, (unsigned)n, (unsigned)(c + 31) / 32};
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, global_average, grid, 256, 1024, starts.data(), slice, c, x.data(), partial.data());
            RUN(global_average_fold, dim3{(unsigned)(n * c + 255) / 256}, 256, 0, partial.data(), slices, starts.data(), n, c, y.data());
            RUN_OF(T, global_average_grad, dim3{2}, 256, 0, starts.data(), n, c, dy.data(), dx.data());
        },
        y, dx);
    std::vector<double> want(n * c), want_dx(all * c);
    for (int s = 0; s < n; s++)
        for (int row = starts[s]; row < starts[s + 1]; row++)
            for (int i = 0; i < c; i++) {
                want[s * c + i] += check::value(x[row * c + i]) / rows[s];
                want_dx[row * c + i] = check::value(dy[s * c + i]) / rows[s];
            }
    check::close("y", y, want, check::SUMMED);
    check::close("dx", dx, want_dx, check::tolerance_of<T>);
}

int main() {
    cubes<bf16>(1, 1, 1, 1, 1), cubes<bf16>(2, 1, 3, 2, 5), cubes<float>(1, 2, 1, 2, 3);
    samples<bf16>({1, 40}, 33, 16), samples<float>({9}, 5, 4);
    return check::report("pool");
}

// The kernels of ops/gram against f64 loops.
#include KERNEL
#include "check.h"

static void run(int n, int positions, int c) {
    check::what = "Gram of " + std::to_string(n) + " x " + std::to_string(positions) + " rows, " + std::to_string(c) + " channels";
    const size_t size = (size_t)n * positions * c;
    const auto p = check::noise(size), z = check::noise(size);
    auto dd = check::noise((size_t)n * c * c);
    for (int k = 0; k < n; k++)
        for (int i = 0; i < c; i++)
            for (int j = 0; j < i; j++) dd[(k * c + i) * c + j] = dd[(k * c + j) * c + i];
    auto d = check::unfilled(dd.size()), dp = check::unfilled(size);
    check::same_under_all_schedules(
        [&] {
            const dim3 square{(unsigned)(c * c + 255) / 256, (unsigned)n}, rows{(unsigned)(positions * c + 255) / 256, (unsigned)n};
            RUN(gram_difference, square, 256, 0, p.data(), z.data(), positions, c, d.data());
            RUN(gram_gradient, rows, 256, 0, p.data(), dd.data(), positions, c, dp.data());
        },
        d, dp);
    std::vector<double> want(dd.size()), want_dp(size);
    for (int k = 0; k < n; k++)
        for (int r = 0; r < positions; r++)
            for (int i = 0; i < c; i++)
                for (int j = 0; j < c; j++) {
                    const size_t row = ((size_t)k * positions + r) * c;
                    want[(k * c + i) * c + j] += (double)p[row + i] * p[row + j] - (double)z[row + i] * z[row + j];
                    want_dp[row + j] += 2.0 * p[row + i] * dd[(k * c + i) * c + j];
                }
    check::close("D", d, want, check::SUMMED);
    check::close("dp", dp, want_dp, check::SUMMED);
}

int main() {
    run(1, 1, 1);
    run(2, 27, 20);
    run(3, 8, 5);
    return check::report("gram");
}

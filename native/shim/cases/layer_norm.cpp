// The kernels of ops/layer_norm against f64 loops.
#include KERNEL
#include "check.h"

template <class T> void run(int rows, int c) {
    check::what = "layer norm of " + std::to_string(rows) + " rows, " + std::to_string(c) + " channels";
    const size_t size = (size_t)rows * c;
    const auto x = check::noise_of<T>(size), dy = check::noise_of<T>(size);
    const auto gamma = check::noise(c), beta = check::noise(c);
    const float eps = 1e-5f;
    const int slice = 13, slices = (rows + slice - 1) / slice;
    auto y = check::unfilled_of<T>(size), dx = y, applied = y;
    auto statistics = check::unfilled(2 * rows), affine = check::unfilled(2 * c);
    check::same_under_all_schedules(
        [&] {
            auto partial = check::unfilled((size_t)slices * 2 * c);
            const dim3 warps{(unsigned)(rows + 7) / 8}, all{(unsigned)slices, 1, check::row_groups<T>(c)};
            RUN_OF(T, layer_norm, warps, 256, 0, x.data(), gamma.data(), beta.data(), rows, c, eps, statistics.data(), y.data());
            RUN_OF(T, layer_norm_apply, dim3{2}, 256, 0, x.data(), statistics.data(), gamma.data(), beta.data(), rows, c, applied.data());
            RUN_OF(T, layer_norm_grad_input, warps, 256, 0, x.data(), statistics.data(), gamma.data(), dy.data(), rows, c, dx.data());
            RUN_OF(T, layer_norm_grad_affine, all, 256, 2 * check::row_bytes<T>(c), x.data(), statistics.data(), dy.data(), rows, c, slice, partial.data());
            RUN(layer_norm_affine_fold, check::folding(2 * c), 256, 0, partial.data(), slices, c, affine.data());
        },
        y, dx, applied, statistics, affine);
    std::vector<double> want_y, want_dx, want_statistics, want_affine(2 * c);
    for (int row = 0; row < rows; row++) {
        double mean = 0, variance = 0, sum = 0, product = 0;
        std::vector<double> from, g;
        for (int i = 0; i < c; i++) {
            from.push_back(check::value(x[(size_t)row * c + i]));
            g.push_back(check::value(dy[(size_t)row * c + i]));
        }
        for (int i = 0; i < c; i++) mean += from[i] / c;
        for (int i = 0; i < c; i++) variance += std::pow(from[i] - mean, 2) / c;
        const double rstd = 1 / std::sqrt(variance + eps);
        auto xhat = [&](int i) { return (from[i] - mean) * rstd; };
        for (int i = 0; i < c; i++) sum += g[i] * gamma[i] / c, product += g[i] * gamma[i] * xhat(i) / c;
        for (int i = 0; i < c; i++) {
            want_y.push_back(gamma[i] * xhat(i) + beta[i]);
            want_dx.push_back(rstd * (g[i] * gamma[i] - sum - xhat(i) * product));
            want_affine[i] += g[i], want_affine[c + i] += g[i] * xhat(i);
        }
        want_statistics.push_back(mean), want_statistics.push_back(rstd);
    }
    check::close("y", y, want_y, check::tolerance_of<T>);
    check::close("y from statistics", applied, want_y, check::tolerance_of<T>);
    check::close("dx", dx, want_dx, check::tolerance_of<T>);
    check::close("statistics", statistics, want_statistics, check::SUMMED);
    check::close("gradients of beta and gamma", affine, want_affine, check::SUMMED);
}

int main() {
    run<float>(1, 5), run<bf16>(1, 5);
    run<float>(40, 33), run<bf16>(40, 33);
    run<bf16>(9, 396), run<float>(9, 396), run<bf16>(21, 864), run<bf16>(3, 2056), run<float>(5, 301);
    return check::report("layer_norm");
}

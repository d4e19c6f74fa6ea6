// The kernels of ops/norm against f64 loops.
#include KERNEL
#include "check.h"

template <class E> static void run(std::vector<int> starts, int c, float slope) {
    const int samples = (int)starts.size() - 1, lines = samples * c;
    const size_t size = (size_t)starts.back() * c;
    check::what = check::name_of<E>() + "norm of " + std::to_string(starts.back()) + " rows in " + std::to_string(samples) + " samples, " +
                  std::to_string(c) + " channels, slope " + std::to_string(slope);
    const auto x = check::noise_of<E>(size), residual = check::noise_of<E>(size), dy = check::noise_of<E>(size);
    const auto gamma = check::noise(c), beta = check::noise(c);
    const double eps = 1e-5;
    const Norm s{samples, c, starts.data(), 37, slope};
    unsigned slices = 1;
    for (int n = 0; n < samples; n++) slices = std::max(slices, (unsigned)(starts[n + 1] - starts[n] + 36) / 37);

    // Three rows together are a stretch, where samples are made of threes.
    std::vector<int> threes;
    for (int at : starts) threes.push_back(at / 3);
    const bool even = std::all_of(starts.begin(), starts.end(), [](int at) { return at % 3 == 0; });
    std::vector<float> of_means, of_variances;
    for (int i = 0; i < threes.back() * c; i++) {
        double mean = 0, variance = 0;
        for (int k = 0; k < 3; k++) mean += number(x[(size_t)(i / c * 3 + k) * c + i % c]) / 3.0;
        for (int k = 0; k < 3; k++) variance += std::pow(number(x[(size_t)(i / c * 3 + k) * c + i % c]) - mean, 2) / 3;
        of_means.push_back((float)mean), of_variances.push_back((float)variance);
    }
    auto joined = check::unfilled(2 * lines);
    auto statistics = check::unfilled(2 * lines), sums = check::unfilled(2 * lines), affine = check::unfilled(2 * c);
    auto y = check::unfilled_of<E>(size), dx = check::unfilled_of<E>(size);
    check::same_under_all_schedules(
        [&] {
            auto partial = check::unfilled(2 * slices * lines);
            const dim3 grid{slices, (unsigned)samples, check::row_groups<E>(c)}, all{3, (unsigned)samples};
            const dim3 fold = check::folding(2 * lines), threes_grid{slices, (unsigned)samples, check::row_groups<float>(c)};
            const unsigned one = check::row_bytes<E>(c), one_f32 = check::row_bytes<float>(c);
            RUN_OF(E, norm_mean, grid, 256, one, s, x.data(), partial.data());
            RUN(norm_fold, fold, 256, 0, s, partial.data(), (int)slices, 1, 1, 0.0f, statistics.data());
            RUN_OF(E, norm_variance, grid, 256, one, s, x.data(), statistics.data(), partial.data());
            RUN(norm_fold, fold, 256, 0, s, partial.data(), (int)slices, 1, 2, (float)eps, statistics.data() + lines);
            if (even) {
                const Norm t{samples, c, threes.data(), 37, 1.0f};
                RUN(norm_mean_f32, threes_grid, 256, one_f32, t, of_means.data(), partial.data());
                RUN(norm_fold, fold, 256, 0, t, partial.data(), (int)slices, 1, 1, 0.0f, joined.data());
                RUN(norm_stretches, threes_grid, 256, one_f32, t, of_means.data(), of_variances.data(), joined.data(), partial.data());
                RUN(norm_fold, fold, 256, 0, t, partial.data(), (int)slices, 1, 2, (float)eps, joined.data() + lines);
            }
            RUN_OF(E, norm_apply, all, 256, 0, s, x.data(), statistics.data(), gamma.data(), beta.data(), residual.data(), y.data());
            const float *a = gamma.data(), *b = beta.data();  // of a norm without residual
            RUN_OF(E, norm_grad_sums, grid, 256, 2 * one, s, x.data(), dy.data(), statistics.data(), a, b, partial.data());
            RUN(norm_fold, fold, 256, 0, s, partial.data(), (int)slices, 2, 0, 0.0f, sums.data());
            RUN_OF(E, norm_grad_input, all, 256, 0, s, x.data(), dy.data(), statistics.data(), sums.data(), a, b, dx.data());
            for (int half : {0, 1}) {
                RUN(norm_grad_affine, dim3{(unsigned)(c + 255) / 256}, 256, 0, sums.data(), half, samples, c, affine.data() + half * c);
            }
        },
        statistics, sums, y, dx, affine, joined);

    std::vector<double> want_y(size), want_dx(size), want_g(size), means(lines), deviations(lines), g1(lines), g2(lines);
    for (int n = 0; n < samples; n++)
        for (int i = 0; i < c; i++) {
            const double count = starts[n + 1] - starts[n];
            double mean = 0, variance = 0, sum = 0, product = 0;
            auto each = [&](auto f) {
                for (int row = starts[n]; row < starts[n + 1]; row++) f((size_t)row * c + i);
            };
            each([&](size_t at) { mean += number(x[at]) / count; });
            each([&](size_t at) { variance += std::pow(number(x[at]) - mean, 2) / count; });
            const double rstd = 1 / std::sqrt(variance + eps);
            each([&](size_t at) {
                const double xhat = (number(x[at]) - mean) * rstd;
                const double own = gamma[i] * xhat + beta[i], v = own + number(residual[at]);
                want_y[at] = v > 0 ? v : slope * v;
                want_g[at] = number(dy[at]) * (own > 0 ? 1.0 : slope);
                sum += want_g[at], product += want_g[at] * xhat;
            });
            each([&](size_t at) {
                const double xhat = (number(x[at]) - mean) * rstd;
                want_dx[at] = gamma[i] * rstd * (want_g[at] - sum / count - xhat * product / count);
            });
            means[n * c + i] = mean, deviations[n * c + i] = rstd, g1[n * c + i] = sum, g2[n * c + i] = product;
        }
    means.insert(means.end(), deviations.begin(), deviations.end());
    g1.insert(g1.end(), g2.begin(), g2.end());
    std::vector<double> want_affine(2 * c);
    for (int i = 0; i < 2 * lines; i++) want_affine[i / lines * c + i % c] += g1[i];
    check::close("statistics", statistics, means, check::SUMMED);
    if (even) check::close("statistics of stretches", joined, means, check::SUMMED);
    check::close("y", y, want_y, check::tolerance_of<E>);
    check::close("sums of the gradient", sums, g1, check::SUMMED);
    check::close("gradients of beta and gamma", affine, want_affine, check::SUMMED);
    check::close("dx", dx, want_dx, std::max(check::tolerance_of<E>, 10 * check::SUMMED));  // two rows: terms cancel
}

template <class E> static void all() {
    for (int c : {1, 5, 32, 40, 300, 2056}) {
        for (float slope : {1.0f, 0.01f}) {
            run<E>({0, 3}, c, slope);
            run<E>({0, 64, 64 + 125}, c, slope);
            run<E>({0, 7, 9, 80}, c, slope);
        }
    }
}

int main() {
    all<bf16>();
    all<float>();
    return check::report("norm");
}

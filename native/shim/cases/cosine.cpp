// The kernels of ops/cosine against f64 loops.
#include KERNEL
#include "check.h"

static void run(int rows, int c) {
    check::what = "cosine of " + std::to_string(rows) + " rows, " + std::to_string(c) + " channels";
    const size_t size = (size_t)rows * c;
    auto x = check::noise(size);
    const auto dy = check::noise(size);
    const float eps = 0.1f, scalar = 1.7f;
    if (rows > 1) for (int i = 0; i < c; i++) x[c + i] = 1e-4f * x[i];  // a row below eps
    auto y = check::unfilled(size), dx = y, scaled = y, swapped = y;
    auto dot = check::unfilled(1), deviations = check::unfilled(rows > 1 ? c : 0);
    check::same_under_all_schedules(
        [&] {
            auto partial = check::unfilled(3);
            const dim3 warps{(unsigned)(rows + 7) / 8};
            RUN(cosine_normalize, warps, 256, 0, x.data(), rows, c, eps, y.data());
            RUN(cosine_normalize_grad, warps, 256, 0, dy.data(), x.data(), rows, c, eps, dx.data());
            RUN(cosine_dot, dim3{3}, 256, 32, x.data(), dy.data(), (long long)size, partial.data());
            RUN(cosine_dot_fold, dim3{1}, 32, 0, partial.data(), 3, 2.0, -0.5, dot.data());
            RUN(cosine_scale, dim3{2}, 256, 0, &scalar, -0.25f, x.data(), (long long)size, scaled.data());
            RUN(cosine_swap, dim3{1}, 256, 0, x.data(), (long long)size / 2 * 2, swapped.data());
            if (rows > 1) RUN(cosine_deviations, dim3{(unsigned)(c + 255) / 256}, 256, 0, x.data(), rows, c, deviations.data());
        },
        y, dx, dot, scaled, swapped, deviations);
    std::vector<double> want_y(size), want_dx(size), want_scaled(size), want_swapped(size);
    double want_dot = 0;
    for (int row = 0; row < rows; row++) {
        double square = 0, product = 0;
        for (int i = row * c; i < (row + 1) * c; i++) square += (double)x[i] * x[i], product += (double)x[i] * dy[i];
        const double norm = std::sqrt(square), largest = std::max(norm, (double)eps);
        for (int i = row * c; i < (row + 1) * c; i++) {
            want_y[i] = x[i] / largest;
            want_dx[i] = (dy[i] - (norm < eps ? 0 : x[i] * product / square)) / largest;
            want_scaled[i] = -0.25 * scalar * x[i];
        }
        want_dot += product;
    }
    std::vector<double> want_deviations;
    for (int i = 0; i < c && rows > 1; i++) {
        double mean = 0, square = 0;
        for (int row = 0; row < rows; row++) mean += x[row * c + i] / (double)rows;
        for (int row = 0; row < rows; row++) square += std::pow(x[row * c + i] - mean, 2);
        want_deviations.push_back(std::sqrt(square / (rows - 1)));
    }
    check::close("deviations", deviations, want_deviations, check::SUMMED);
    const size_t half = size / 2;
    for (size_t i = 0; i < 2 * half; i++) want_swapped[i] = x[(i + half) % (2 * half)];
    if (size % 2) swapped.pop_back(), want_swapped.pop_back();
    check::close("unit rows", y, want_y, check::SUMMED);
    check::close("dx", dx, want_dx, check::SUMMED);
    check::close("dot", dot, {2 - 0.5 * want_dot}, check::SUMMED);
    check::close("scaled", scaled, want_scaled, check::SUMMED);
    check::close("swapped", swapped, want_swapped, 0);
}

int main() {
    run(1, 1);
    run(2, 33);
    run(686, 5);
    run(9, 320);
    return check::report("cosine");
}

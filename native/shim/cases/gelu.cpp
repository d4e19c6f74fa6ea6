// The kernels of ops/gelu against f64.
#include KERNEL
#include "check.h"

static void run(int n) {
    check::what = "GELU of " + std::to_string(n) + " values";
    auto x = check::noise(n);
    const auto dy = check::noise(n);
    for (float& v : x) v *= 5;
    auto y = check::unfilled(n), dx = y;
    check::same_under_all_schedules(
        [&] {
            RUN(gelu, dim3{2}, 256, 0, x.data(), n, y.data());
            RUN(gelu_grad, dim3{1}, 256, 0, x.data(), dy.data(), n, dx.data());
        },
        y, dx);
    std::vector<double> want_y, want_dx;
    for (int i = 0; i < n; i++) {
        const double v = x[i], share = 0.5 * std::erfc(-v / std::sqrt(2.0));
        want_y.push_back(v * share);
        want_dx.push_back(dy[i] * (share + v * std::exp(-v * v / 2) / std::sqrt(2 * std::acos(-1.0))));
    }
    check::close("y", y, want_y, check::SUMMED);
    check::close("dx", dx, want_dx, check::SUMMED);
}

int main() {
    run(1);
    run(1037);
    return check::report("gelu");
}

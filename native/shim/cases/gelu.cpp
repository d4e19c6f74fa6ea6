// The kernels of ops/gelu against f64.
#include KERNEL
#include "check.h"

template <class T> void run(int n) {
    check::what = "GELU of " + std::to_string(n) + " values";
    auto x = check::noise_of<T>(n);
    const auto dy = check::noise_of<T>(n);
    for (T& v : x) store(&v, 5 * number(v));
    auto y = check::unfilled_of<T>(n), dx = y;
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, gelu, dim3{2}, 256, 0, x.data(), n, y.data());
            RUN_OF(T, gelu_grad, dim3{1}, 256, 0, x.data(), dy.data(), n, dx.data());
        },
        y, dx);
    std::vector<double> want_y, want_dx;
    for (int i = 0; i < n; i++) {
        const double v = check::value(x[i]), share = 0.5 * std::erfc(-v / std::sqrt(2.0));
        want_y.push_back(v * share);
        want_dx.push_back(check::value(dy[i]) * (share + v * std::exp(-v * v / 2) / std::sqrt(2 * std::acos(-1.0))));
    }
    check::close("y", y, want_y, check::tolerance_of<T>);
    check::close("dx", dx, want_dx, check::tolerance_of<T>);
}

int main() {
    for (int n : {1, 1037}) run<float>(n), run<bf16>(n);
    return check::report("gelu");
}

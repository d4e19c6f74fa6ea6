// LeakyReLU and SiLU against f64.
#include "check.h"
#include KERNEL

template <class T> void run(int n) {
    check::what = "activations of " + std::to_string(n) + " values of " + std::to_string(sizeof(T)) + " bytes";
    auto x = check::noise_of<T>(n);
    for (int i = 0; i < n; i += 3) store(&x[i], 30 * number(x[i]));
    const auto dy = check::noise_of<T>(n);
    auto leaked = check::unfilled_of<T>(n), leaked_back = leaked, smooth = leaked, smooth_back = leaked;
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, leaky, dim3{2}, 256, 0, x.data(), n, 0.01f, leaked.data());
            RUN_OF(T, leaky_grad, dim3{1}, 256, 0, x.data(), dy.data(), n, 0.01f, leaked_back.data());
            RUN_OF(T, silu, dim3{3}, 256, 0, x.data(), n, smooth.data());
            RUN_OF(T, silu_grad, dim3{2}, 256, 0, x.data(), dy.data(), n, smooth_back.data());
        },
        leaked, leaked_back, smooth, smooth_back);
    std::vector<double> want[4];
    for (int i = 0; i < n; i++) {
        const double v = check::value(x[i]), g = check::value(dy[i]), s = 1 / (1 + std::exp(-v));
        want[0].push_back(v > 0 ? v : 0.01 * v);
        want[1].push_back(v > 0 ? g : 0.01 * g);
        want[2].push_back(v * s);
        want[3].push_back(g * s * (1 + v * (1 - s)));
    }
    check::close("LeakyReLU", leaked, want[0], check::tolerance_of<T>);
    check::close("gradient of LeakyReLU", leaked_back, want[1], check::tolerance_of<T>);
    check::close("SiLU", smooth, want[2], check::tolerance_of<T>);
    check::close("gradient of SiLU", smooth_back, want[3], check::tolerance_of<T>);
}

int main() {
    for (int n : {1, 700}) run<float>(n), run<bf16>(n);
    return check::report("activation");
}

// The kernels of ops/swiglu against f64.
#include KERNEL
#include "check.h"

template <class T> void run(int n) {
    check::what = "SwiGLU of " + std::to_string(n) + " values";
    auto gate = check::noise_of<T>(n);
    const auto value = check::noise_of<T>(n), dy = check::noise_of<T>(n);
    for (int i = 0; i < n; i++) store(&gate[i], number(gate[i]) * (i % 7 == 3 ? 60 : 4));
    auto y = check::unfilled_of<T>(n), dgate = y, dvalue = y;
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, swiglu, dim3{2}, 256, 0, gate.data(), value.data(), n, y.data());
            RUN_OF(T, swiglu_grad, dim3{1}, 256, 0, gate.data(), value.data(), dy.data(), n, dgate.data(), dvalue.data());
        },
        y, dgate, dvalue);
    std::vector<double> want_y, want_dgate, want_dvalue;
    for (int i = 0; i < n; i++) {
        const double g = check::value(gate[i]), v = check::value(value[i]), d = check::value(dy[i]), s = 1 / (1 + std::exp(-g));
        want_y.push_back(g * s * v);
        want_dgate.push_back(d * v * s * (1 + g * (1 - s)));
        want_dvalue.push_back(d * g * s);
    }
    check::close("y", y, want_y, check::tolerance_of<T>);
    check::close("dgate", dgate, want_dgate, check::tolerance_of<T>);
    check::close("dvalue", dvalue, want_dvalue, check::tolerance_of<T>);
}

int main() {
    for (int n : {1, 1037}) run<float>(n), run<bf16>(n);
    return check::report("swiglu");
}

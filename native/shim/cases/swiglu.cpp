// The kernels of ops/swiglu against f64.
#include KERNEL
#include "check.h"

static void run(int n) {
    check::what = "SwiGLU of " + std::to_string(n) + " values";
    auto gate = check::noise(n);
    const auto value = check::noise(n), dy = check::noise(n);
    for (int i = 0; i < n; i++) gate[i] *= i % 7 == 3 ? 60 : 4;
    auto y = check::unfilled(n), dgate = y, dvalue = y;
    check::same_under_all_schedules(
        [&] {
            RUN(swiglu, dim3{2}, 256, 0, gate.data(), value.data(), n, y.data());
            RUN(swiglu_grad, dim3{1}, 256, 0, gate.data(), value.data(), dy.data(), n, dgate.data(), dvalue.data());
        },
        y, dgate, dvalue);
    std::vector<double> want_y, want_dgate, want_dvalue;
    for (int i = 0; i < n; i++) {
        const double g = gate[i], s = 1 / (1 + std::exp(-g));
        want_y.push_back(g * s * value[i]);
        want_dgate.push_back(dy[i] * value[i] * s * (1 + g * (1 - s)));
        want_dvalue.push_back(dy[i] * g * s);
    }
    check::close("y", y, want_y, check::SUMMED);
    check::close("dgate", dgate, want_dgate, check::SUMMED);
    check::close("dvalue", dvalue, want_dvalue, check::SUMMED);
}

int main() {
    run(1);
    run(1037);
    return check::report("swiglu");
}

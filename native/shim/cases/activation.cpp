// The kernels of ops/activation against f64.
#include KERNEL
#include "check.h"

template <class E> static void run(int n, float slope) {
    check::what = check::name_of<E>() + "activations, " + std::to_string(n) + " values";
    const auto x = check::noise_of<E>(n), dy = check::noise_of<E>(n);
    auto leaky = check::unfilled_of<E>(n), leaky_grad = leaky, silu = leaky, silu_grad = leaky;
    const long long count = n;
    check::same_under_all_schedules(
        [&] {
            RUN_OF(E, activation_leaky, dim3{2}, 256, 0, x.data(), slope, count, leaky.data());
            RUN_OF(E, activation_leaky_grad, dim3{1}, 256, 0, x.data(), dy.data(), slope, count, leaky_grad.data());
            RUN_OF(E, activation_silu, dim3{3}, 256, 0, x.data(), count, silu.data());
            RUN_OF(E, activation_silu_grad, dim3{2}, 256, 0, x.data(), dy.data(), count, silu_grad.data());
        },
        leaky, leaky_grad, silu, silu_grad);
    std::vector<double> want[4];
    for (int i = 0; i < n; i++) {
        const double v = number(x[i]), g = number(dy[i]), s = 1 / (1 + std::exp(-v));
        want[0].push_back(v > 0 ? v : slope * v), want[1].push_back(v > 0 ? g : slope * g);
        want[2].push_back(v * s), want[3].push_back(g * s * (1 + v * (1 - s)));
    }
    check::close("leaky", leaky, want[0], check::tolerance_of<E>);
    check::close("gradient of leaky", leaky_grad, want[1], check::tolerance_of<E>);
    check::close("silu", silu, want[2], check::tolerance_of<E>);
    check::close("gradient of silu", silu_grad, want[3], check::tolerance_of<E>);
}

int main() {
    for (int n : {1, 300, 1000}) run<bf16>(n, 0.01f), run<float>(n, 0.2f);
    return check::report("activation");
}

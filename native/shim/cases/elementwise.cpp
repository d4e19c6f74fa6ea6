// The kernels of ops/elementwise, value by value.
#include KERNEL
#include "check.h"

template <class E> static void run(int n) {
    check::what = check::name_of<E>() + "elementwise, " + std::to_string(n) + " values";
    const auto u = check::noise_of<E>(n), v = check::noise_of<E>(n);
    auto both = check::unfilled_of<E>(n), one = both, filled = both;
    auto high = check::unfilled(n);
    auto low = check::unfilled16(n);
    check::same_under_all_schedules(
        [&] {
            RUN_OF(E, combine, dim3{2}, 256, 0, 0.5f, u.data(), -2.0f, v.data(), (long long)n, both.data());
            RUN_OF(E, combine, dim3{3}, 256, 0, 3.0f, u.data(), 0.0f, (const E*)nullptr, (long long)n, one.data());
            RUN_OF(E, fill, dim3{1}, 256, 0, 1.25f, (long long)n, filled.data());
            if constexpr (std::is_same_v<E, bf16>) RUN(convert_to_f32, dim3{2}, 256, 0, u.data(), (long long)n, high.data());
            else RUN(convert_to_bf16, dim3{2}, 256, 0, u.data(), (long long)n, low.data());
        },
        both, one, filled, high, low);
    std::vector<double> want_both, want_one, want;
    for (int i = 0; i < n; i++) {
        const double a = number(u[i]), b = number(v[i]);
        want_both.push_back(0.5 * a - 2 * b), want_one.push_back(3 * a), want.push_back(a);
    }
    check::close("a u + b v", both, want_both, check::tolerance_of<E>);
    check::close("a u", one, want_one, check::tolerance_of<E>);
    check::close("filled", filled, std::vector<double>(n, 1.25), 0);
    if constexpr (std::is_same_v<E, bf16>) check::close("as f32", high, want, 0);
    else check::close("as bf16", low, want, check::STORED);
}

int main() {
    for (int n : {1, 255, 1000}) run<bf16>(n), run<float>(n);
    return check::report("elementwise");
}

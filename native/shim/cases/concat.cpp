// The kernels of ops/concat, value by value.
#include KERNEL
#include "check.h"

template <class E> static void run(int rows, int ca, int cb) {
    check::what = check::name_of<E>() + "concat, " + std::to_string(rows) + " rows, channels " + std::to_string(ca) +
                  " and " + std::to_string(cb);
    const auto a = check::noise_of<E>(rows * ca), b = check::noise_of<E>(rows * cb);
    auto y = check::unfilled_of<E>(rows * (ca + cb)), back = check::unfilled_of<E>(rows * cb);
    const Columns left{rows, ca, ca, 0, ca + cb, 0}, right{rows, cb, cb, 0, ca + cb, ca}, taken{rows, cb, ca + cb, ca, cb, 0};
    check::same_under_all_schedules(
        [&] {
            RUN_OF(E, concat_columns, dim3{2}, 256, 0, left, a.data(), y.data());
            RUN_OF(E, concat_columns, dim3{1}, 256, 0, right, b.data(), y.data());
            RUN_OF(E, concat_columns, dim3{3}, 256, 0, taken, y.data(), back.data());
        },
        y, back);
    std::vector<double> want, want_back;
    for (int row = 0; row < rows; row++) {
        for (int i = 0; i < ca; i++) want.push_back(number(a[row * ca + i]));
        for (int i = 0; i < cb; i++) want.push_back(number(b[row * cb + i])), want_back.push_back(number(b[row * cb + i]));
    }
    check::close("[a | b]", y, want, 0);
    check::close("columns", back, want_back, 0);
}

int main() {
    run<bf16>(1, 1, 1), run<float>(7, 33, 5), run<bf16>(130, 8, 16), run<float>(64, 1, 3), run<float>(50, 12, 8), run<bf16>(40, 8, 5);
    return check::report("concat");
}

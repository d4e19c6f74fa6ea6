// Concatenation and columns: every value is where the contract says, to the bit.
#include "check.h"
#include KERNEL

template <class T> void run(int rows, int ca, int cb) {
    check::what = "concat " + std::to_string(rows) + " rows, " + std::to_string(ca) + " and " + std::to_string(cb);
    const auto a = check::noise_of<T>(rows * ca), b = check::noise_of<T>(rows * cb);
    auto y = check::unfilled_of<T>(rows * (ca + cb)), back = check::unfilled_of<T>(rows * cb);
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, concat, dim3{2}, 256, 0, a.data(), b.data(), rows, ca, cb, y.data());
            RUN_OF(T, columns, dim3{1}, 256, 0, y.data(), rows, ca + cb, ca, cb, back.data());
        },
        y, back);
    std::vector<double> want, want_back;
    for (int row = 0; row < rows; row++) {
        for (int i = 0; i < ca; i++) want.push_back(check::value(a[row * ca + i]));
        for (int i = 0; i < cb; i++) want.push_back(check::value(b[row * cb + i]));
        for (int i = 0; i < cb; i++) want_back.push_back(check::value(b[row * cb + i]));
    }
    check::close("y", y, want, 0);
    check::close("columns", back, want_back, 0);
}

int main() {
    run<bf16>(1, 1, 1), run<bf16>(70, 5, 32), run<float>(33, 8, 3);
    return check::report("concat");
}

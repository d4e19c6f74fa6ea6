// Maximum of cubes, to the bit; ties go to the first in the order z, y, x.
#include "check.h"
#include KERNEL

template <class T> void run(int planes, int y, int x, int c) {
    check::what = "max pooling to " + std::to_string(planes) + " planes of " + std::to_string(y) + " " + std::to_string(x);
    const Pool p{planes, {y, x}, c};
    const int n = planes * y * x * c;
    auto fine = check::noise_of<T>(8 * n);
    for (T& v : fine) store(&v, std::round(3 * number(v)));  // ties are common
    const auto dy = check::noise_of<T>(n);
    auto got = check::unfilled_of<T>(n), back = check::unfilled_of<T>(8 * n);
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, max_pool, dim3{2}, 256, 0, p, fine.data(), got.data());
            RUN_OF(T, max_pool_grad, dim3{1}, 256, 0, p, dy.data(), fine.data(), got.data(), back.data());
        },
        got, back);
    std::vector<double> want(n), want_back(8 * n);
    for (int i = 0; i < planes; i++)
        for (int j = 0; j < y; j++)
            for (int k = 0; k < x; k++)
                for (int d = 0; d < c; d++) {
                    int best = -1;
                    for (int v = 0; v < 8; v++) {
                        const int at = (((2 * i + v / 4) * 2 * y + 2 * j + v / 2 % 2) * 2 * x + 2 * k + v % 2) * c + d;
                        if (best < 0 || check::value(fine[at]) > check::value(fine[best])) best = at;
                    }
                    const int to = ((i * y + j) * x + k) * c + d;
                    want[to] = check::value(fine[best]);
                    want_back[best] = check::value(dy[to]);
                }
    check::close("y", got, want, 0);
    check::close("dx", back, want_back, 0);
}

int main() {
    run<bf16>(1, 1, 1, 1), run<bf16>(3, 2, 3, 5), run<float>(2, 1, 4, 3);
    return check::report("maxpool");
}

// The kernels of ops/gather against a copy of each row.
#include KERNEL
#include "check.h"

template <class E> static void run(int rows, int c, std::vector<int> index) {
    check::what = check::name_of<E>() + std::to_string(index.size()) + " of " + std::to_string(rows) + " rows, " +
                  std::to_string(c) + " channels";
    const auto x = check::noise_of<E>((size_t)rows * c);
    auto y = check::unfilled_of<E>(index.size() * c);
    const long long count = (long long)index.size();
    check::same_under_all_schedules(
        [&] { RUN_OF(E, gather_rows, dim3{2}, 256, 0, x.data(), index.data(), count, c, y.data()); }, y);
    std::vector<double> want(y.size());
    for (size_t i = 0; i < index.size(); i++)
        for (int k = 0; k < c && index[i] >= 0; k++) want[i * c + k] = check::value(x[(size_t)index[i] * c + k]);
    check::close("y", y, want, 0);
}

int main() {
    std::vector<int> gaps;
    for (int i = 0; i < 150; i++) gaps.push_back(i % 4 == 1 ? -1 : i * 7 % 97);
    run<bf16>(97, 5, gaps), run<float>(97, 33, gaps);
    run<bf16>(1, 1, {-1}), run<float>(1, 1, {0}), run<bf16>(97, 24, gaps), run<float>(97, 12, gaps);
    return check::report("gather");
}

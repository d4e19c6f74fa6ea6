// Weighted means of rows and their gradients against f64.
#include "check.h"
#include KERNEL

template <class T> void run(std::vector<int> rows, int c) {
    check::what = "softmax pooling of " + std::to_string(rows.size()) + " samples, " + std::to_string(c) + " channels";
    std::vector<int> starts{0};
    for (int r : rows) starts.push_back(starts.back() + r);
    const int n = (int)rows.size(), all = starts.back();
    const auto x = check::noise_of<T>(all * c);
    auto scores = check::noise(all);
    for (float& s : scores) s *= 2;  // more, and one row takes all: then the gradient cancels
    const auto dy = check::noise(n * c);
    auto weights = check::unfilled(all), y = check::unfilled(n * c), ds = weights;
    auto dx = check::unfilled_of<T>(all * c);
    check::same_under_all_schedules(
        [&] {
            RUN(softmax_rows, dim3{(unsigned)n}, 256, 32, starts.data(), scores.data(), weights.data());
            const dim3 grid{1, (unsigned)n, (unsigned)(c + 31) / 32};
            RUN_OF(T, weighted_sum, grid, 256, 1024, starts.data(), c, x.data(), weights.data(), y.data());
            RUN_OF(T, weighted_sum_grad, dim3{2}, 256, 0, starts.data(), n, c, dy.data(), weights.data(), dx.data());
            RUN_OF(T, softmax_pool_grad_scores, dim3{(unsigned)(all + 7) / 8}, 256, 0, starts.data(), n, c, dy.data(), x.data(), y.data(), weights.data(), ds.data());
        },
        weights, y, dx, ds);
    std::vector<double> want_weights, want_y(n * c), want_dx, want_ds;
    for (int s = 0; s < n; s++) {
        double total = 0, mean = 0;
        for (int row = starts[s]; row < starts[s + 1]; row++) total += std::exp((double)scores[row]);
        for (int row = starts[s]; row < starts[s + 1]; row++) {
            want_weights.push_back(std::exp((double)scores[row]) / total);
            for (int i = 0; i < c; i++) {
                want_y[s * c + i] += want_weights[row] * check::value(x[row * c + i]);
                want_dx.push_back(want_weights[row] * dy[s * c + i]);
            }
        }
        for (int i = 0; i < c; i++) mean += dy[s * c + i] * want_y[s * c + i];
        for (int row = starts[s]; row < starts[s + 1]; row++) {
            double sum = 0;
            for (int i = 0; i < c; i++) sum += dy[s * c + i] * check::value(x[row * c + i]);
            want_ds.push_back(want_weights[row] * (sum - mean));
        }
    }
    check::close("weights", weights, want_weights, check::SUMMED);
    check::close("y", y, want_y, check::SUMMED);
    check::close("dx", dx, want_dx, check::tolerance_of<T>);
    check::close("gradient of the scores", ds, want_ds, check::SUMMED);
}

int main() {
    run<bf16>({5, 300}, 33), run<float>({4}, 5);
    return check::report("softmax_pool");
}

// Layer scale and its gradients against f64; one sample is dropped (keep 0).
#include "check.h"
#include KERNEL

template <class T> void run(std::vector<int> rows, int c, int slice) {
    check::what = "layer scale of " + std::to_string(rows.size()) + " samples, " + std::to_string(c) + " channels";
    std::vector<int> starts{0};
    std::vector<float> keep;
    for (int r : rows) starts.push_back(starts.back() + r), keep.push_back(keep.size() % 2 ? 0.0f : 1.25f);
    const int n = (int)rows.size(), all = starts.back(), slices = (all + slice - 1) / slice;
    const auto gamma = check::noise(c);
    const auto x = check::noise_of<T>(all * c), branch = check::noise_of<T>(all * c), dy = check::noise_of<T>(all * c);
    auto y = check::unfilled_of<T>(all * c), dbranch = y;
    auto partial = check::unfilled(slices * c), dgamma = check::unfilled(c);
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, layer_scale, dim3{2}, 256, 0, starts.data(), n, c, keep.data(), gamma.data(), x.data(), branch.data(), y.data());
            RUN_OF(T, layer_scale_grad_branch, dim3{1}, 256, 0, starts.data(), n, c, keep.data(), gamma.data(), dy.data(), dbranch.data());
            const dim3 grid{(unsigned)slices, 1, check::row_groups<T>(c)};
            RUN_OF(T, layer_scale_grad_gamma, grid, 256, check::row_bytes<T>(c), starts.data(), n, slice, c, keep.data(), dy.data(), branch.data(), partial.data());
            RUN(layer_scale_fold, check::folding(c), 256, 0, partial.data(), slices, c, dgamma.data());
        },
        y, dbranch, dgamma);
    std::vector<double> want, want_branch, want_gamma(c);
    for (int s = 0; s < n; s++)
        for (int row = starts[s]; row < starts[s + 1]; row++)
            for (int i = 0; i < c; i++) {
                const int at = row * c + i;
                want.push_back(check::value(x[at]) + (double)keep[s] * gamma[i] * check::value(branch[at]));
                want_branch.push_back((double)keep[s] * gamma[i] * check::value(dy[at]));
                want_gamma[i] += keep[s] * check::value(dy[at]) * check::value(branch[at]);
            }
    check::close("y", y, want, check::tolerance_of<T>);
    check::close("dbranch", dbranch, want_branch, check::tolerance_of<T>);
    check::close("dgamma", dgamma, want_gamma, check::SUMMED);
}

int main() {
    run<bf16>({3, 20}, 33, 8), run<float>({7}, 5, 16), run<bf16>({9, 30, 1}, 72, 11), run<float>({50}, 36, 16);
    return check::report("layer_scale");
}

// The kernels of ops/separable against f64 loops over whole matrices.
#include KERNEL
#include "check.h"

static std::vector<double> judge(const Resampling& s, const std::vector<float>& w, auto value) {
    std::vector<double> y;
    auto weight = [&](int d, int n, int o, int i) {
        size_t at = 0;
        for (int e = 0; e < d; e++) at += (size_t)s.n * s.input[e] * s.output[e];
        return (double)w[at + ((size_t)n * s.output[d] + o) * s.input[d] + i];
    };
    for (int n = 0; n < s.n; n++)
        for (int p = 0; p < s.output[0]; p++)
            for (int q = 0; q < s.output[1]; q++)
                for (int r = 0; r < s.output[2]; r++)
                    for (int c = 0; c < s.c; c++) {
                        double sum = 0;
                        for (int i = 0; i < s.input[0]; i++)
                            for (int j = 0; j < s.input[1]; j++)
                                for (int k = 0; k < s.input[2]; k++) {
                                    const size_t voxel = ((size_t)(n * s.input[0] + i) * s.input[1] + j) * s.input[2] + k;
                                    sum += weight(0, n, p, i) * weight(1, n, q, j) * weight(2, n, r, k) * value(voxel * s.c + c);
                                }
                        y.push_back(sum);
                    }
    return y;
}

static void run(const Resampling& s) {
    check::what = "separable of " + std::to_string(s.n) + " samples, " + std::to_string(s.input[0]) + " to " +
                  std::to_string(s.output[0]) + ", " + std::to_string(s.c) + " channels";
    size_t weights = 0, rows = 0, in = s.n * s.c, out = s.n * s.c;
    for (int d = 0; d < 3; d++) {
        weights += (size_t)s.n * s.input[d] * s.output[d];
        rows += (size_t)s.n * s.output[d];
        in *= s.input[d], out *= s.output[d];
    }
    auto w = check::noise(weights);
    for (size_t i = 0; i < w.size(); i += 1 + i % 3) w[i] = 0;
    for (int i = 0; i < s.input[0]; i++) w[i] = 0;  // a row without values
    const auto x16 = check::noise16(in);
    const auto x32 = check::noise(in);
    std::vector<int> support(2 * rows, -1);
    auto y32 = check::unfilled(out);
    auto y16 = check::unfilled16(out);
    auto same32 = check::unfilled(out);
    auto same16 = check::unfilled16(out);
    check::same_under_all_schedules(
        [&] {
            RUN(separable_support, dim3{(unsigned)(rows + 255) / 256}, 256, 0, s, w.data(), support.data());
            RUN(separable_from_bf16, dim3{3}, 256, 0, s, w.data(), support.data(), x16.data(), y32.data());
            RUN(separable_to_bf16, dim3{2}, 256, 0, s, w.data(), support.data(), x32.data(), y16.data());
            RUN(separable_f32, dim3{1}, 256, 0, s, w.data(), support.data(), x32.data(), same32.data());
            RUN(separable_bf16, dim3{2}, 256, 0, s, w.data(), support.data(), x16.data(), same16.data());
        },
        support, y32, y16, same32, same16);
    check::close("y", y32, judge(s, w, [&](size_t i) { return (double)from_bf16(x16[i]); }), check::SUMMED);
    check::close("y, all f32", same32, judge(s, w, [&](size_t i) { return (double)x32[i]; }), check::SUMMED);
    check::close("y, all bf16", same16, judge(s, w, [&](size_t i) { return (double)from_bf16(x16[i]); }), check::STORED);
    check::close("y in bf16", y16, judge(s, w, [&](size_t i) { return (double)x32[i]; }), check::STORED);
}

int main() {
    run({1, {1, 1, 1}, {1, 1, 1}, 1});
    run({2, {4, 3, 5}, {3, 6, 2}, 3});
    run({1, {5, 7, 3}, {7, 7, 7}, 8});
    run({3, {6, 2, 9}, {2, 1, 4}, 33});
    return check::report("separable");
}

// The linear layer and its gradients against f64: whole tiles, parts of tiles, odd widths.
#include "check.h"
#include KERNEL

static void run(int rows, int c_in, int c_out, int splits, bool biased) {
    check::what = "linear of " + std::to_string(rows) + " rows, " + std::to_string(c_in) + " to " + std::to_string(c_out);
    const auto x = check::noise16((size_t)rows * c_in), w = check::noise16((size_t)c_in * c_out), dy = check::noise16((size_t)rows * c_out);
    const auto bias = check::noise(c_out);
    auto y = check::unfilled16((size_t)rows * c_out), dx = check::unfilled16((size_t)rows * c_in);
    auto partial = check::unfilled((size_t)splits * c_in * c_out), dw = check::unfilled((size_t)c_in * c_out);
    const int split = ((rows + splits - 1) / splits + DEPTH - 1) / DEPTH * DEPTH;
    splits = (rows + split - 1) / split;
    auto tiles = [](int m, int n) { return (unsigned)((m + EDGE - 1) / EDGE * ((n + EDGE - 1) / EDGE)); };
    const int bytes = 2 * BUFFERS * STAGE * 2;
    check::same_under_all_schedules(
        [&] {
            RUN(linear, dim3{tiles(rows, c_out)}, 256, bytes, Product{rows, c_out, c_in, (c_in + 31) / 32 * 32}, x.data(), w.data(), biased ? bias.data() : nullptr, y.data());
            RUN(linear_grad_input, dim3{tiles(rows, c_in)}, 256, bytes, Product{rows, c_in, c_out, (c_out + 31) / 32 * 32}, dy.data(), w.data(), dx.data());
            RUN(linear_grad_weight, (dim3{tiles(c_out, c_in), 1, (unsigned)splits}), 256, bytes, Product{c_out, c_in, rows, split}, dy.data(), x.data(), partial.data());
            RUN(linear_fold, dim3{2}, 256, 0, partial.data(), splits, (long long)c_in * c_out, dw.data());
        },
        y, dx, dw);
    std::vector<double> want_y(y.size()), want_dx(dx.size()), want_dw(dw.size());
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < c_out; o++) {
            const double g = check::value(dy[r * c_out + o]);
            double sum = biased ? bias[o] : 0;
            for (int i = 0; i < c_in; i++) {
                const double a = check::value(x[r * c_in + i]), b = check::value(w[o * c_in + i]);
                sum += a * b;
                want_dx[r * c_in + i] += g * b;
                want_dw[o * c_in + i] += g * a;
            }
            want_y[r * c_out + o] = sum;
        }
    check::close("y", y, want_y, check::STORED);
    check::close("dx", dx, want_dx, check::STORED);
    check::close("dweight", dw, want_dw, check::SUMMED);
}

int main() {
    run(1, 5, 3, 1, true);
    run(130, 72, 40, 2, false);
    run(140, 33, 136, 2, true);
    return check::report("linear");
}

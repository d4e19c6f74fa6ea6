// Window attention forward and backward against the definition in f64: whole and cut windows, with regions and without.
#include "check.h"
#include KERNEL

template <class E> static void run(int windows, int tokens, int heads, int width, int edge, int masked) {
    check::what = check::name_of<E>() + std::to_string(windows) + " windows of " + std::to_string(tokens) + " tokens, " +
                  std::to_string(heads) + " heads of " + std::to_string(width) + (masked ? ", regions" : "");
    const int c = heads * width, row = 2 * edge - 1, entries = row * row * row, n = tokens;
    std::vector<int> regions(masked * tokens);  // of `masked` windows, again and again
    for (size_t i = 0; i < regions.size(); i++) regions[i] = (int)(i * i % 5 / 2);
    const Windows s{windows, tokens, heads, width, edge, (int)regions.size(), 1.0f / std::sqrt((float)width)};
    auto qkv = check::noise_of<E>((size_t)windows * n * 3 * c), dy = check::noise_of<E>((size_t)windows * n * c);
    for (E& v : qkv) store(&v, 2 * number(v));
    const auto table = check::noise((size_t)entries * heads);
    auto y = check::unfilled_of<E>(dy.size()), dqkv = check::unfilled_of<E>(qkv.size());
    auto dtable = check::unfilled(table.size());
    const int slice = 2, slices = (windows + 1) / 2, tiles = (n + TILE - 1) / TILE;
    const dim3 grid{(unsigned)windows, (unsigned)heads, (unsigned)(n + 127) / 128};
    const dim3 squares{(unsigned)(tiles * tiles), (unsigned)heads, (unsigned)slices};
    const int bytes = 2 * STRETCH * W * 4, square = 4 * TILE * (W + 1) * 4;
    check::same_under_all_schedules(
        [&] {
            auto l = check::unfilled((size_t)windows * heads * n), means = l;
            auto pairs = check::unfilled((size_t)slices * heads * n * n);
            RUN_OF(E, window_attention, grid, 128, bytes, s, qkv.data(), table.data(), regions.data(), y.data());
            RUN_OF(E, window_attention_grad_q, grid, 128, bytes, s, qkv.data(), table.data(), regions.data(), dy.data(), l.data(), means.data(), dqkv.data());
            RUN_OF(E, window_attention_grad_kv, grid, 128, bytes, s, qkv.data(), table.data(), regions.data(), dy.data(), l.data(), means.data(), dqkv.data());
            RUN_OF(E, window_attention_pairs, squares, 256, square, s, slice, qkv.data(), table.data(), regions.data(), dy.data(), l.data(), means.data(), pairs.data());
            RUN(window_attention_table, dim3{(unsigned)(entries * heads + 7) / 8}, 256, 0, s, slices, pairs.data(), dtable.data());
        },
        y, dqkv, dtable);
    std::vector<double> want_y(y.size()), want_d(dqkv.size()), want_t(dtable.size());
    for (int w = 0; w < windows; w++)
        for (int head = 0; head < heads; head++) {
            const auto at = [&](int part, int i, int d) { return (((size_t)w * n + i) * 3 + part) * c + head * width + d; };
            const auto out = [&](int i, int d) { return ((size_t)w * n + i) * c + head * width + d; };
            for (int i = 0; i < n; i++) {
                std::vector<double> p(n), dp(n);
                std::vector<int> entry(n);
                double total = 0, mean = 0;
                for (int j = 0; j < n; j++) {
                    const int dz = i / (edge * edge) - j / (edge * edge), dv = i / edge % edge - j / edge % edge, dx = i % edge - j % edge;
                    entry[j] = (((dz + edge - 1) * row + dv + edge - 1) * row + dx + edge - 1) * heads + head;
                    double score = table[entry[j]];
                    for (int d = 0; d < width; d++) {
                        score += check::value(qkv[at(0, i, d)]) * check::value(qkv[at(1, j, d)]) / std::sqrt((double)width);
                        dp[j] += check::value(dy[out(i, d)]) * check::value(qkv[at(2, j, d)]);
                    }
                    if (masked && regions[w % masked * n + i] != regions[w % masked * n + j]) score -= 100;
                    total += p[j] = std::exp(score);
                }
                for (int j = 0; j < n; j++) mean += (p[j] /= total) * dp[j];
                for (int j = 0; j < n; j++) {
                    const double ds = p[j] * (dp[j] - mean);
                    want_t[entry[j]] += ds;
                    for (int d = 0; d < width; d++) {
                        want_y[out(i, d)] += p[j] * check::value(qkv[at(2, j, d)]);
                        want_d[at(0, i, d)] += ds * check::value(qkv[at(1, j, d)]) / std::sqrt((double)width);
                        want_d[at(1, j, d)] += ds * check::value(qkv[at(0, i, d)]) / std::sqrt((double)width);
                        want_d[at(2, j, d)] += p[j] * check::value(dy[out(i, d)]);
                    }
                }
            }
        }
    check::close("y", y, want_y, check::tolerance_of<E>);
    check::close("dqkv", dqkv, want_d, check::tolerance_of<E>);
    check::close("dtable", dtable, want_t, 2 * check::SUMMED);
}

int main() {
    run<bf16>(4, 27, 2, 3, 3, 2);
    run<float>(4, 27, 2, 4, 3, 2);
    run<float>(1, 20, 1, 32, 3, 0);  // fewer tokens than a window has
    run<bf16>(3, 75, 1, 17, 5, 1);   // more than a stretch
    run<float>(1, 131, 1, 5, 6, 0);  // more than a block of threads
    run<bf16>(1, 1, 1, 1, 1, 0);
    return check::report("window_attention");
}

// Attention forward and backward against the definition in f64: samples of one row, of a whole tile, of a tile and
// some; fewer queries than keys, none, more.
#include "check.h"
#include KERNEL

/// Queries and keys of a sample.
struct Sample {
    int queries, keys;
};

template <class E> static void run(std::vector<Sample> samples, int heads, int width) {
    constexpr bool single = std::is_same_v<E, float>;
    check::what = check::name_of<E>() + "attention, " + std::to_string(samples.size()) + " samples, first of " +
                  std::to_string(samples[0].queries) + " queries and " + std::to_string(samples[0].keys) + " keys, " +
                  std::to_string(heads) + " heads of " + std::to_string(width);
    std::vector<Span> tiles, key_tiles;
    int rows = 0, keys = 0;
    for (const auto [n, m] : samples) {
        const int step = single ? ROWS : TILE;
        for (int first = rows; first < rows + n; first += step) tiles.push_back({first, rows + n, keys, keys + m});
        for (int first = keys; first < keys + m; first += step) key_tiles.push_back({first, keys + m, rows, rows + n});
        rows += n;
        keys += m;
    }
    const int c = heads * width, count = rows * heads;
    const Attention a{heads, width, 1.0f / std::sqrt((float)width)};
    // Queries of a size that makes some rows attend to few keys.
    auto q = check::noise_of<E>((size_t)rows * c), k = check::noise_of<E>((size_t)keys * c);
    for (E& v : q) store(&v, 4 * number(v));
    const auto v = check::noise_of<E>((size_t)keys * c), dy = check::noise_of<E>((size_t)rows * c);
    auto y = check::unfilled_of<E>((size_t)rows * c), dq = y, dk = check::unfilled_of<E>((size_t)keys * c), dv = dk;
    auto l = check::unfilled(count), means = l;
    const dim3 grid{(unsigned)tiles.size(), (unsigned)heads}, key_grid{(unsigned)key_tiles.size(), (unsigned)heads};
    check::same_under_all_schedules(
        [&] {
            const unsigned warps = (count + 7) / 8;
#define WIDE(W)                                                                                                          \
    RUN(attention_##W, grid, 128, 3 * TILE * (W + 8) * 2, a, tiles.data(), q.data(), k.data(), v.data(), l.data(),       \
        y.data());                                                                                                       \
    RUN(attention_means, dim3{warps}, 256, 0, y.data(), dy.data(), count, width, means.data());                          \
    RUN(attention_grad_q_##W, grid, 128, 4 * TILE * (W + 8) * 2, a, tiles.data(), q.data(), k.data(), v.data(),          \
        dy.data(), l.data(), means.data(), dq.data());                                                                   \
    RUN(attention_grad_kv_##W, key_grid, 128, 2 * (TILE + STRETCH) * (W + 8) * 2 + 8 * STRETCH, a, key_tiles.data(),     \
        q.data(), k.data(), v.data(), dy.data(), l.data(), means.data(), dk.data(), dv.data())
            if constexpr (single) {
                const auto bytes = [&](int rows, int sets) { return 4 * (rows * (width | 1) + sets * ROWS * LANES); };
                const int two = 2 * (ROWS + LANES);
                RUN(attention_f32, grid, 256, bytes(ROWS + 2 * LANES, 1), a, tiles.data(), q.data(), k.data(), v.data(), l.data(), y.data());
                RUN(attention_grad_q_f32, grid, 256, bytes(two, 1), a, tiles.data(), q.data(), k.data(), v.data(), dy.data(), l.data(), means.data(), dq.data());
                RUN(attention_grad_kv_f32, key_grid, 256, bytes(two, 2), a, key_tiles.data(), q.data(), k.data(), v.data(), dy.data(), l.data(), means.data(), dk.data(), dv.data());
            } else if (width <= 32) { WIDE(32); }
            else if (width <= 64) { WIDE(64); }
            else { WIDE(80); }
        },
        y, l, dq, dk, dv);

    std::vector<double> want_y(rows * c), want_l(count), want_q(rows * c), want_k(keys * c), want_v(keys * c);
    auto at = [&](int row, int head) { return (size_t)(row * heads + head) * width; };
    auto inner = [&](const std::vector<E>& left, size_t i, const std::vector<E>& right, size_t j) {
        double sum = 0;
        for (int d = 0; d < width; d++) sum += check::value(left[i + d]) * check::value(right[j + d]);
        return sum;
    };
    int first = 0, begin = 0;
    for (const auto [count, n] : samples) {
        for (int head = 0; head < heads; head++)
            for (int i = first; i < first + count; i++) {
                std::vector<double> p(n);
                double top = -1e300, total = 0, mean = 0;
                for (int j = 0; j < n; j++) {
                    p[j] = inner(q, at(i, head), k, at(begin + j, head)) / std::sqrt((double)width);
                    top = std::max(top, p[j]);
                }
                for (double& s : p) total += s = std::exp(s - top);
                for (double& s : p) s /= total;
                want_l[i * heads + head] = top + std::log(total);
                for (int j = 0; j < n; j++) {
                    const size_t row = at(begin + j, head);
                    mean += p[j] * inner(dy, at(i, head), v, row);
                    for (int d = 0; d < width; d++) want_y[at(i, head) + d] += p[j] * check::value(v[row + d]);
                }
                for (int j = 0; j < n; j++) {
                    const size_t row = at(begin + j, head);
                    const double ds = p[j] * (inner(dy, at(i, head), v, row) - mean) / std::sqrt((double)width);
                    for (int d = 0; d < width; d++) {
                        want_v[row + d] += p[j] * check::value(dy[at(i, head) + d]);
                        want_q[at(i, head) + d] += ds * check::value(k[row + d]);
                        want_k[row + d] += ds * check::value(q[at(i, head) + d]);
                    }
                }
            }
        first += count;
        begin += n;
    }
    // p and ds are rounded to bf16 before the second product, y before its use in the means.
    const double unit = single ? 2 * check::SUMMED : check::STORED;
    check::close("y", y, want_y, 2 * unit);
    check::close("l", l, want_l, check::SUMMED);
    check::close("dv", dv, want_v, 2 * unit);
    check::close("dq", dq, want_q, 4 * unit);
    check::close("dk", dk, want_k, 4 * unit);
}

int main() {
    run<bf16>({{1, 1}, {64, 64}}, 2, 72);
    run<bf16>({{70, 70}, {3, 3}}, 1, 66);
    run<bf16>({{33, 33}}, 3, 12);
    run<bf16>({{129, 129}}, 1, 54);
    run<bf16>({{20, 90}, {0, 5}, {66, 3}}, 1, 72);
    run<float>({{1, 1}, {40, 40}}, 2, 72);
    run<float>({{9, 9}, {33, 33}}, 1, 12);
    run<float>({{11, 11}}, 1, 127);
    run<float>({{5, 40}, {0, 9}, {10, 2}}, 1, 12);
    return check::report("attention");
}

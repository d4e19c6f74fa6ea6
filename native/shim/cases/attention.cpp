// Attention forward and backward against the definition in f64: samples of one row, of a whole tile, of a tile and some.
#include "check.h"
#include KERNEL

template <class E> static void run(std::vector<int> samples, int heads, int width) {
    constexpr bool single = std::is_same_v<E, float>;
    check::what = check::name_of<E>() + "attention, " + std::to_string(samples.size()) + " samples, first of " + std::to_string(samples[0]) +
                  " rows, " + std::to_string(heads) + " heads of " + std::to_string(width);
    std::vector<Span> tiles;
    int rows = 0;
    for (int n : samples) {
        for (int first = rows; first < rows + n; first += single ? ROWS : TILE) tiles.push_back({first, rows, rows + n});
        rows += n;
    }
    const int c = heads * width, count = rows * heads;
    const Attention a{heads, width, 1.0f / std::sqrt((float)width)};
    // Queries of a size that makes some rows attend to few keys.
    auto q = check::noise_of<E>((size_t)rows * c), k = check::noise_of<E>((size_t)rows * c);
    for (E& v : q) store(&v, 4 * number(v));
    const auto v = check::noise_of<E>((size_t)rows * c), dy = check::noise_of<E>((size_t)rows * c);
    auto y = check::unfilled_of<E>((size_t)rows * c), dq = y, dk = y, dv = y;
    auto l = check::unfilled(count), means = l;
    const dim3 grid{(unsigned)tiles.size(), (unsigned)heads};
    check::same_under_all_schedules(
        [&] {
            const unsigned warps = (count + 7) / 8;
#define WIDE(W)                                                                                                          \
    RUN(attention_##W, grid, 128, 3 * TILE * (W + 8) * 2, a, tiles.data(), q.data(), k.data(), v.data(), l.data(),       \
        y.data());                                                                                                       \
    RUN(attention_means, dim3{warps}, 256, 0, y.data(), dy.data(), count, width, means.data());                          \
    RUN(attention_grad_q_##W, grid, 128, 4 * TILE * (W + 8) * 2, a, tiles.data(), q.data(), k.data(), v.data(),          \
        dy.data(), l.data(), means.data(), dq.data());                                                                   \
    RUN(attention_grad_kv_##W, grid, 128, 2 * (TILE + STRETCH) * (W + 8) * 2 + 8 * STRETCH, a, tiles.data(), q.data(),   \
        k.data(), v.data(), dy.data(), l.data(), means.data(), dk.data(), dv.data())
            if constexpr (single) {
                const auto bytes = [&](int rows, int sets) { return 4 * (rows * (width | 1) + sets * ROWS * LANES); };
                const int two = 2 * (ROWS + LANES);
                RUN(attention_f32, grid, 256, bytes(ROWS + 2 * LANES, 1), a, tiles.data(), q.data(), k.data(), v.data(), l.data(), y.data());
                RUN(attention_grad_q_f32, grid, 256, bytes(two, 1), a, tiles.data(), q.data(), k.data(), v.data(), dy.data(), l.data(), means.data(), dq.data());
                RUN(attention_grad_kv_f32, grid, 256, bytes(two, 2), a, tiles.data(), q.data(), k.data(), v.data(), dy.data(), l.data(), means.data(), dk.data(), dv.data());
            } else if (width <= 32) { WIDE(32); }
            else if (width <= 64) { WIDE(64); }
            else { WIDE(80); }
        },
        y, l, dq, dk, dv);

    std::vector<double> want_y(rows * c), want_l(count), want_q(rows * c), want_k(rows * c), want_v(rows * c);
    auto at = [&](int row, int head) { return (size_t)(row * heads + head) * width; };
    auto inner = [&](const std::vector<E>& left, size_t i, const std::vector<E>& right, size_t j) {
        double sum = 0;
        for (int d = 0; d < width; d++) sum += check::value(left[i + d]) * check::value(right[j + d]);
        return sum;
    };
    int begin = 0;
    for (int n : samples) {
        for (int head = 0; head < heads; head++)
            for (int i = begin; i < begin + n; i++) {
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
    run<bf16>({1, 64}, 2, 72);
    run<bf16>({70, 3}, 1, 66);
    run<bf16>({33}, 3, 12);
    run<bf16>({129}, 1, 54);
    run<float>({1, 40}, 2, 72);
    run<float>({9, 33}, 1, 12);
    run<float>({11}, 1, 127);
    return check::report("attention");
}

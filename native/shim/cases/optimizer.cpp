// The kernels of ops/optimizer against f64 loops, over four steps; the third has a gradient that is not finite. The values
// are cut into three tensors, of which the last has more than one chunk where there are enough.
#include KERNEL
#include "check.h"

using Values = std::vector<double>;

static Values wide(const std::vector<float>& v) { return Values(v.begin(), v.end()); }

static void run(int n, bool nesterov, bool amsgrad, float clip) {
    check::what = "optimizer on " + std::to_string(n) + " values, clip " + std::to_string(clip);
    const double lr = 0.01, momentum = 0.9, decay = 0.05, beta1 = 0.9, beta2 = 0.98, eps = 1e-8;
    const auto begin = check::noise(n);
    std::vector<std::vector<float>> gradients;
    for (int k = 0; k < 4; k++) gradients.push_back(check::noise(n));
    gradients[2][n / 2] = INFINITY;
    std::vector<float> p, q, s, m, v, top, teacher, of_p, of_q, norms(4), steps;
    check::same_under_all_schedules(
        [&] {
            p = q = teacher = of_p = of_q = begin;
            s.assign(n, 0), m.assign(n, 0), v.assign(n, 0), top.assign(n, 0), steps.assign(3, 0);
            for (int k = 0; k < 4; k++) {
                const int cuts[4] = {0, n / 10, n / 3, n};
                std::vector<Part> plain, adam, pairs;
                int chunks = 0;
                for (int t = 0; t < 3; t++) {
                    const int at = cuts[t], values = cuts[t + 1] - at;
                    if (!values) continue;
                    float* const g = gradients[k].data() + at;
                    const auto follows = [&](std::vector<float>& of) { return t == 1 ? nullptr : of.data() + at; };
                    plain.push_back({g, p.data() + at, s.data() + at, nullptr, nullptr, nullptr, follows(of_p), values, chunks});
                    adam.push_back({g, q.data() + at, m.data() + at, v.data() + at, amsgrad ? top.data() + at : nullptr,
                                    &steps[t], follows(of_q), values, chunks});
                    float* const alone = teacher.data() + at;
                    pairs.push_back({p.data() + at, nullptr, nullptr, nullptr, nullptr, nullptr, alone, values, chunks});
                    chunks += (values + CHUNK - 1) / CHUNK;
                }
                const int count = (int)plain.size();
                const dim3 grid{(unsigned)chunks};
                std::vector<double> partial(chunks, NAN);
                std::vector<Step> sizes(count, {NAN, NAN});
                RUN(optimizer_squares, grid, 256, 2048, plain.data(), count, partial.data());
                RUN(optimizer_norm, dim3{1}, 256, 2048, partial.data(), chunks, &norms[k]);
                RUN(optimizer_begin, dim3{1}, 256, 0, &norms[k], adam.data(), count, lr, beta1, beta2, sizes.data());
                RUN(optimizer_sgd, grid, 256, 0, &norms[k], clip, plain.data(), count, (float)lr, (float)momentum, nesterov,
                    (float)decay, 0.9f, 0.1f);
                RUN(optimizer_adamw, grid, 256, 0, &norms[k], clip, adam.data(), count, sizes.data(), (float)beta1,
                    (float)(1 - beta1), (float)beta2, (float)(1 - beta2), (float)(1 - lr * decay), (float)eps, 0.8f, 0.2f);
                RUN(optimizer_ema, grid, 256, 0, pairs.data(), count, 0.99f, 0.01f);
                if (k == 3) RUN(optimizer_ema, grid, 256, 0, pairs.data(), count, 0.0f, 1.0f);
            }
        },
        p, q, s, m, v, top, teacher, of_p, of_q, norms, steps);

    Values wp = wide(begin), wq = wp, wt = wp, wof_p = wp, wof_q = wp, ws(n), wm(n), wv(n), wtop(n), want_norms;
    int taken = 0;
    for (int k = 0; k < 4; k++) {
        double squares = 0;
        for (float g : gradients[k]) squares += (double)g * g;
        want_norms.push_back(std::sqrt(squares));
        const bool go = k != 2;
        taken += go;
        const double factor = std::min(1.0, clip / (std::sqrt(squares) + 1e-6));
        for (int i = 0; i < n; i++) {
            const double g = gradients[k][i] * factor;
            if (go) {
                const double h = g + decay * wp[i];
                ws[i] = momentum * ws[i] + h;
                wp[i] -= lr * (nesterov ? h + momentum * ws[i] : ws[i]);
                wm[i] = beta1 * wm[i] + (1 - beta1) * g;
                wv[i] = beta2 * wv[i] + (1 - beta2) * g * g;
                wtop[i] = amsgrad ? std::max(wtop[i], wv[i]) : 0;
                const double second = (amsgrad ? wtop[i] : wv[i]) / (1 - std::pow(beta2, taken));
                wq[i] = wq[i] * (1 - lr * decay) - lr * wm[i] / (1 - std::pow(beta1, taken)) / (std::sqrt(second) + eps);
                const bool followed = i < n / 10 || i >= n / 3;  // the middle tensor has no teacher
                if (followed) wof_p[i] = 0.9 * wof_p[i] + 0.1 * wp[i];
                if (followed) wof_q[i] = 0.8 * wof_q[i] + 0.2 * wq[i];
            }
            wt[i] = k == 3 ? wp[i] : 0.99 * wt[i] + 0.01 * wp[i];
        }
    }
    norms.erase(norms.begin() + 2), want_norms.erase(want_norms.begin() + 2);
    check::close("norm", norms, want_norms, check::SUMMED);
    for (int t = 0; t < 2; t++) steps[t] = n < 10 ? 3 : steps[t];  // one value has one tensor
    check::close("steps", steps, {3.0, 3.0, 3.0}, 0);
    check::close("parameters (SGD)", p, wp, check::SUMMED);
    check::close("momentum", s, ws, check::SUMMED);
    check::close("parameters (AdamW)", q, wq, check::SUMMED);
    check::close("first moment", m, wm, check::SUMMED);
    check::close("second moment", v, wv, check::SUMMED);
    check::close("largest second moment", top, wtop, check::SUMMED);
    check::close("teacher", teacher, wt, check::SUMMED);
    check::close("teacher of SGD", of_p, wof_p, check::SUMMED);
    check::close("teacher of AdamW", of_q, wof_q, check::SUMMED);
}

int main() {
    run(1, true, false, 12);
    run(1000, true, false, 1);
    run(777, false, true, 12);
    run(40000, true, true, 12);
    return check::report("optimizer");
}

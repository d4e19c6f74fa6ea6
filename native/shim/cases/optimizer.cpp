// The kernels of ops/optimizer against f64 loops, over four steps; the third has a gradient that is not finite.
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
    std::vector<float> p, q, s, m, v, top, teacher, norms(4), steps;
    check::same_under_all_schedules(
        [&] {
            p = q = teacher = begin;
            s.assign(n, 0), m.assign(n, 0), v.assign(n, 0), top.assign(n, 0), steps.assign(1, 0);
            for (int k = 0; k < 4; k++) {
                const int stretch = 300;
                std::vector<double> partial((n + stretch - 1) / stretch, NAN);
                Step plain{NAN, NAN, NAN, NAN}, adam = plain;
                const float* g = gradients[k].data();
                RUN(optimizer_squares, dim3{(unsigned)partial.size()}, 256, 2048, g, n, stretch, partial.data());
                RUN(optimizer_norm, dim3{1}, 32, 0, partial.data(), (int)partial.size(), &norms[k]);
                RUN(optimizer_begin, dim3{1}, 32, 0, &norms[k], clip, nullptr, lr, beta1, beta2, &plain);
                RUN(optimizer_begin, dim3{1}, 32, 0, &norms[k], clip, steps.data(), lr, beta1, beta2, &adam);
                RUN(optimizer_sgd, dim3{2}, 256, 0, &plain, (float)lr, (float)momentum, nesterov, (float)decay, n, g, p.data(), s.data());
                RUN(optimizer_adamw, dim3{3}, 256, 0, &adam, (float)beta1, (float)(1 - beta1), (float)beta2,
                    (float)(1 - beta2), (float)(1 - lr * decay), (float)eps, n, g, q.data(), m.data(), v.data(),
                    amsgrad ? top.data() : nullptr);
                RUN(optimizer_ema, dim3{1}, 256, 0, 0.99f, 0.01f, n, p.data(), teacher.data());
            }
        },
        p, q, s, m, v, top, teacher, norms, steps);

    Values wp = wide(begin), wq = wp, wt = wp, ws(n), wm(n), wv(n), wtop(n), want_norms;
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
            }
            wt[i] = 0.99 * wt[i] + 0.01 * wp[i];
        }
    }
    norms.erase(norms.begin() + 2), want_norms.erase(want_norms.begin() + 2);
    check::close("norm", norms, want_norms, check::SUMMED);
    check::close("steps", steps, {3.0}, 0);
    check::close("parameters (SGD)", p, wp, check::SUMMED);
    check::close("momentum", s, ws, check::SUMMED);
    check::close("parameters (AdamW)", q, wq, check::SUMMED);
    check::close("first moment", m, wm, check::SUMMED);
    check::close("second moment", v, wv, check::SUMMED);
    check::close("largest second moment", top, wtop, check::SUMMED);
    check::close("teacher", teacher, wt, check::SUMMED);
}

int main() {
    run(1, true, false, 12);
    run(1000, true, false, 1);
    run(777, false, true, 12);
    return check::report("optimizer");
}

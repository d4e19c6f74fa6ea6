// The kernels of ops/ntxent against the definition in f64; the gradient against differences of that loss.
#include KERNEL
#include "check.h"

static double judge(const std::vector<double>& r, int n, int c, double temperature) {
    double total = 0;
    for (int i = 0; i < 2 * n; i++) {
        double sum = 0, positive = 0;
        for (int j = 0; j < 2 * n; j++) {
            double s = 0;
            for (int k = 0; k < c; k++) s += r[i * c + k] * r[j * c + k];
            const int apart = std::abs(i - j);
            if (apart == n) positive = s / temperature;
            if (apart != 0 && apart != n / 2 && apart != 2 * n - n / 2) sum += std::exp(s / temperature);
        }
        total += std::log(sum) - positive;
    }
    return total / (2 * n);
}

static void run(int n, int c, float temperature) {
    check::what = "NT-Xent of " + std::to_string(n) + " views, " + std::to_string(c) + " channels";
    auto student = check::noise(n * c), teacher = check::noise(n * c);
    for (auto* rows : {&student, &teacher})
        for (float& v : *rows) v /= std::sqrt((float)c / 3);
    const float dloss = 1.3f;
    auto s = check::unfilled(4 * n * n), rows = check::unfilled(2 * n), loss = check::unfilled(1), accuracy = loss, grad = check::unfilled(n * c);
    check::same_under_all_schedules(
        [&] {
            const dim3 values{(unsigned)(4 * n * n + 7) / 8}, columns{(unsigned)n, (unsigned)(c + 255) / 256};
            RUN(ntxent_similarity, values, 256, 0, student.data(), teacher.data(), n, c, temperature, s.data());
            RUN(ntxent_rows, dim3{(unsigned)(2 * n + 31) / 32}, 32, 0, s.data(), n, rows.data());
            RUN(ntxent_loss, dim3{1}, 32, 0, s.data(), rows.data(), n, loss.data());
            RUN(ntxent_grad, columns, 256, 0, &dloss, s.data(), rows.data(), student.data(), teacher.data(), n, c, temperature, grad.data());
            RUN(ntxent_accuracy, dim3{1}, 256, 1024, s.data(), n, accuracy.data());
        },
        s, rows, loss, grad, accuracy);
    std::vector<double> r(teacher.begin(), teacher.end());
    r.insert(r.end(), student.begin(), student.end());
    check::close("loss", loss, {judge(r, n, c, temperature)}, check::SUMMED);
    double hits = 0;
    for (int i = 0; i < 2 * n; i++) {
        int best = -1;
        for (int j = 0; j < 2 * n; j++) {
            const int apart = std::abs(i - j);
            const bool counts = apart != 0 && apart != n / 2 && apart != 2 * n - n / 2;
            if (counts && (best < 0 || s[i * 2 * n + j] > s[i * 2 * n + best])) best = j;
        }
        hits += std::abs(best - i) == n;
    }
    check::close("accuracy", accuracy, {hits / (2 * n)}, 1e-6);
    std::vector<double> want;
    for (int i = 0; i < n * c; i++) {
        auto at = [&](double by) {
            auto moved = r;
            moved[n * c + i] += by;
            return judge(moved, n, c, temperature);
        };
        want.push_back(dloss * (at(1e-5) - at(-1e-5)) / 2e-5);
    }
    check::close("gradient", grad, want, check::SUMMED);
}

int main() {
    run(4, 1, 0.5f);
    run(6, 7, 0.5f);
    run(10, 37, 0.2f);
    return check::report("ntxent");
}

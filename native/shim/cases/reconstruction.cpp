// The kernels of ops/reconstruction against f64 loops; the weights hide rows as a mask does.
#include KERNEL
#include "check.h"

static void run(int rows, int c, int kind, int visible) {
    check::what = "reconstruction kind " + std::to_string(kind) + " of " + std::to_string(rows) + " rows, " +
                  std::to_string(c) + " channels, " + (visible ? "masked" : "unweighted");
    auto y = check::noise((size_t)rows * c), target = check::noise((size_t)rows * c);
    for (float& v : y) v *= 3;
    std::vector<float> weight(rows);
    for (int i = 0; i < rows; i++) weight[i] = i % visible == 0;
    const float dloss = 1.7f;
    auto partial = check::unfilled(3 * 2), result = check::unfilled(2), dy = check::unfilled(y.size());
    const float* w = visible > 1 ? weight.data() : nullptr;
    check::same_under_all_schedules(
        [&] {
            RUN(reconstruction_sums, dim3{3}, 256, 64, y.data(), target.data(), w, rows, c, kind, partial.data());
            RUN(reconstruction_fold, dim3{1}, 32, 0, partial.data(), 3, c, result.data());
            RUN(reconstruction_grad, dim3{2}, 256, 0, &dloss, result.data(), y.data(), target.data(), w, rows, c, kind, dy.data());
        },
        result, dy);
    double sum = 0, weights = 0;
    std::vector<double> want(y.size());
    for (int row = 0; row < rows; row++) {
        weights += w ? weight[row] : 1;
        for (int i = row * c; i < (row + 1) * c; i++) {
            const double r = (double)y[i] - target[i], a = std::abs(r), m = w ? weight[row] : 1;
            sum += m * (kind == 0 ? r * r : kind == 1 ? a : a < 1 ? r * r / 2 : a - 0.5);
            want[i] = m * dloss * (kind == 0 ? 2 * r : kind == 1 ? (r > 0) - (r < 0) : std::clamp(r, -1.0, 1.0));
        }
    }
    const double count = c * weights + 1e-12;
    for (double& v : want) v /= count;
    check::close("loss", std::vector<float>{result[0]}, {sum / count}, check::SUMMED);
    check::close("count", std::vector<float>{result[1]}, {count}, check::SUMMED);
    check::close("dy", dy, want, check::SUMMED);
}

int main() {
    for (int kind = 0; kind < 3; kind++) {
        run(1, 1, kind, 1);
        run(4099, 1, kind, 1);
        run(4099, 1, kind, 4);
        run(700, 3, kind, 5000);  // all hidden but one
    }
    return check::report("reconstruction");
}

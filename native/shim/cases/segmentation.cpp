// The kernels of ops/segmentation against the definition of the loss in f64, its gradient by the chain rule.
#include KERNEL
#include "check.h"

static void run(int samples, int voxels, int classes, bool batch_dice, int slice, float weight = 1) {
    check::what = std::to_string(samples) + " x " + std::to_string(voxels) + " voxels, " + std::to_string(classes) +
                  " classes" + (batch_dice ? ", batch Dice" : weight == 0 ? ", no Dice" : "");
    const Segmentation s{samples, voxels, classes, batch_dice, slice, weight};
    const int rows = samples * voxels, slices = (voxels + slice - 1) / slice, groups = batch_dice ? 1 : samples;
    auto z = check::noise((size_t)rows * classes);
    for (float& v : z) v *= 6;
    std::vector<float> labels(rows);
    for (int i = 0; i < rows; i++) labels[i] = (float)(i * 7 % 11 % classes);
    int lanes = 2;
    while (lanes < classes && lanes < 32) lanes *= 2;
    const float dloss = 1.7f;
    auto l = check::unfilled(rows), loss = check::unfilled(1), dz = check::unfilled(z.size()), y = dz;
    check::same_under_all_schedules(
        [&] {
            auto partial = check::unfilled((size_t)samples * slices * classes * 4), slopes = check::unfilled(2 * groups * classes);
            std::vector<double> parts(2 * groups * classes, NAN);
            const dim3 grid{(unsigned)slices, (unsigned)(classes + 31) / 32, (unsigned)samples};
            RUN(segmentation_logs, dim3{2}, 256, 0, z.data(), (long long)rows, classes, l.data());
            RUN(segmentation_sums, grid, 256, 4096, s, lanes, z.data(), labels.data(), l.data(), partial.data());
            RUN(segmentation_fold, dim3{1}, 256, 0, s, slices, partial.data(), parts.data(), slopes.data(), loss.data());
            RUN(segmentation_grad, dim3{3}, 256, 0, s, &dloss, z.data(), labels.data(), l.data(), slopes.data(), dz.data());
            RUN(segmentation_softmax, dim3{2}, 256, 0, z.data(), (long long)rows, classes, y.data());
        },
        loss, dz, y);
    std::vector<double> p(z.size()), want(z.size());
    double entropy = 0, dice = 0;
    for (int v = 0; v < rows; v++) {
        double sum = 0;
        for (int c = 0; c < classes; c++) sum += std::exp((double)z[v * classes + c]);
        for (int c = 0; c < classes; c++) p[v * classes + c] = std::exp((double)z[v * classes + c]) / sum;
        entropy -= std::log(p[v * classes + (int)labels[v]]) / rows;
    }
    const int size = rows / groups;
    std::vector<double> by_p(z.size());  // d loss / d p of Dice alone
    for (int k = 0; k < groups; k++)
        for (int c = 1; c < classes; c++) {
            double both = 0, sum = 0;
            for (int v = k * size; v < (k + 1) * size; v++) {
                const int hit = labels[v] == c;
                both += p[v * classes + c] * hit, sum += p[v * classes + c] + hit;
            }
            const double a = 2 * both + 1e-5, b = sum + 1e-5, share = weight / (groups * (classes - 1.0));
            dice += share * a / b;
            for (int v = k * size; v < (k + 1) * size; v++)
                by_p[v * classes + c] = -share * (2 * (labels[v] == c) / b - a / (b * b));
        }
    for (int v = 0; v < rows; v++) {
        double along = 0;
        for (int c = 0; c < classes; c++) along += p[v * classes + c] * by_p[v * classes + c];
        for (int c = 0; c < classes; c++) {
            const int i = v * classes + c;
            want[i] = dloss * (p[i] * (by_p[i] - along) + (p[i] - (labels[v] == c)) / rows);
        }
    }
    check::close("loss", loss, {entropy - dice}, check::SUMMED);
    check::close("dz", dz, want, check::SUMMED);
    check::close("softmax", y, p, check::SUMMED);
}

int main() {
    run(2, 300, 3, false, 128);
    run(2, 300, 3, true, 128);
    run(1, 1, 2, false, 4096);
    run(7, 1, 3, false, 4096, 0);
    run(3, 45, 40, false, 16);  // more classes than lanes
    run(1, 700, 8, true, 256);
    return check::report("segmentation");
}

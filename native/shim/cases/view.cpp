// The kernels of ops/view: crops and B-splines against their definitions in f64, intensities against loops.
#include "check.h"
#include KERNEL

using Sides = std::array<int, 3>;
static size_t volume(const Sides& s) { return (size_t)s[0] * s[1] * s[2]; }
static int mirrored(int i, int n) {
    for (; n > 1 && (i < 0 || i >= n);) i = i < 0 ? -i : 2 * n - 2 - i;
    return n == 1 ? 0 : i;
}
/// The cubic B-spline.
static double spline(double t) {
    t = std::abs(t);
    return t < 1 ? 2.0 / 3 - t * t + t * t * t / 2 : t < 2 ? (2 - t) * (2 - t) * (2 - t) / 6 : 0;
}
static double tent(double t) { return std::max(0.0, 1 - std::abs(t)); }

static View view_of(const Sides& size, const Sides& low, const Sides& shape, const Sides& patch, std::array<double, 12> affine, bool filled) {
    View s{};
    for (int d = 0; d < 3; d++) s.size[d] = size[d], s.low[d] = low[d], s.shape[d] = shape[d], s.patch[d] = patch[d];
    std::copy(affine.begin(), affine.end(), s.affine);
    s.fill = -3.0f, s.filled = filled;
    return s;
}

static void crop(const Sides& sign, const Sides& start) {
    const Sides shape{6, 7, 9}, low{1, 0, 2}, size{4, 7, 6}, patch{4, 9, 6};
    check::what = "crop from " + std::to_string(start[0]);
    const View s = view_of(size, low, {shape[0], shape[1], shape[2]}, patch, {}, true);
    const Crop c{{sign[0], sign[1], sign[2]}, {start[0], start[1], start[2]}};
    const auto x = check::noise(volume(size));
    auto y = check::unfilled(volume(patch));
    // Of the volume only the region is there; the crop reads none of the rest.
    check::same_under_all_schedules([&] { RUN(view_crop, dim3{2}, 256, 0, s, c, x.data(), y.data()); }, y);
    std::vector<double> want;
    for (int z = 0; z < patch[0]; z++)
        for (int v = 0; v < patch[1]; v++)
            for (int w = 0; w < patch[2]; w++) {
                const int at[3] = {z, v, w};
                int j[3];
                bool inside = true;
                for (int d = 0; d < 3; d++) {
                    j[d] = (sign[d] > 0 ? start[d] + at[d] : start[d] - 1 - at[d]);
                    inside = inside && j[d] >= 0 && j[d] < shape[d];
                    j[d] -= low[d];
                }
                want.push_back(inside ? x[(j[0] * size[1] + j[1]) * size[2] + j[2]] : -3.0);
            }
    check::close("crop", y, want, 0);
}

static void interpolation(const Sides& size, const Sides& low, const Sides& shape, std::array<double, 12> affine, bool filled, bool bent = false) {
    const Sides patch{5, 4, 19};
    check::what = "splines of " + std::to_string(size[0]) + " " + std::to_string(size[1]) + " " + std::to_string(size[2]) + (bent ? ", bent" : "");
    const View s = view_of(size, low, shape, patch, affine, filled);
    const auto x = check::noise(volume(size));
    const Sides nodes{kept(patch[0]), kept(patch[1]), kept(patch[2])};
    const auto fields = check::noise(3 * volume(nodes));
    auto coefficients = x, y = check::unfilled(volume(patch)), between = y;
    const double pole = std::sqrt(3.0) - 2;
    check::same_under_all_schedules(
        [&] {
            coefficients = x;
            for (int d = 0; d < 3; d++) {
                const int n = size[d], inner = d == 2 ? 1 : d == 1 ? size[2] : size[1] * size[2], lines = (int)volume(size) / n;
                if (n == 1) continue;
                std::vector<float> start;
                for (int k = 0; k < std::min(n, 28); k++) {
                    const double back = k == 0 || k == n - 1 ? 0 : std::pow(pole, 2 * n - 2 - k);
                    start.push_back((float)(6 * (std::pow(pole, k) + back) / (1 - std::pow(pole, 2 * n - 2))));
                }
                RUN(view_filter, dim3{(unsigned)(lines + 255) / 256}, 256, 0, coefficients.data(), (long long)lines, n,
                    (long long)inner, start.data(), (int)start.size());
            }
            RUN(view_taps, dim3{2}, 256, 0, s, coefficients.data(), bent ? fields.data() : nullptr, y.data());
            RUN(view_linear, dim3{2}, 256, 0, s, x.data(), bent ? fields.data() : nullptr, between.data());
        },
        coefficients, y, between);
    // At whole voxels the splines are the values.
    const auto at = [&](const std::vector<float>& of, double (*basis)(double), double z, double v, double w) {
        double sum = 0;
        const int first[3] = {(int)std::floor(z) - 1, (int)std::floor(v) - 1, (int)std::floor(w) - 1};
        for (int a = first[0]; a < first[0] + 4; a++)
            for (int b = first[1]; b < first[1] + 4; b++)
                for (int c = first[2]; c < first[2] + 4; c++) {
                    const double weight = basis(z - a) * basis(v - b) * basis(w - c);
                    int tap[3] = {mirrored(a, shape[0]) - low[0], mirrored(b, shape[1]) - low[1], mirrored(c, shape[2]) - low[2]};
                    for (int d = 0; d < 3; d++) tap[d] = std::clamp(tap[d], 0, size[d] - 1);
                    sum += weight * of[(tap[0] * size[1] + tap[1]) * size[2] + tap[2]];
                }
        return sum;
    };
    if (size == shape) {
        std::vector<float> again;
        for (int z = 0; z < size[0]; z++)
            for (int v = 0; v < size[1]; v++)
                for (int w = 0; w < size[2]; w++) again.push_back((float)at(coefficients, spline, z, v, w));
        check::close("voxels", again, std::vector<double>(x.begin(), x.end()), check::SUMMED);
    }
    std::vector<double> want, linear;
    for (size_t i = 0; i < y.size(); i++) {
        double q[3] = {(int)(i / patch[2] / patch[1]) + 0.5, (int)(i / patch[2] % patch[1]) + 0.5, (int)(i % patch[2]) + 0.5};
        double by[3] = {0, 0, 0};
        for (int d = 0; d < 3 && bent; d++)
            for (size_t k = 0; k < volume(nodes); k++) {
                // Trilinear: a tent of four voxels around each node.
                const double node[3] = {k / nodes[2] / nodes[1] * 4 + 0.5, k / nodes[2] % nodes[1] * 4 + 0.5, k % nodes[2] * 4 + 0.5};
                double weight = 1;
                for (int e = 0; e < 3; e++) weight *= std::max(0.0, 1 - std::abs(q[e] - node[e]) / 4);
                by[d] += weight * fields[d * volume(nodes) + k];
            }
        for (int d = 0; d < 3; d++) q[d] += by[d];
        double p[3];
        bool within = true;
        for (int d = 0; d < 3; d++) {
            const double* const a = affine.data() + 4 * d;
            p[d] = a[0] * q[0] + a[1] * q[1] + a[2] * q[2] + a[3] - 0.5;
            within = within && p[d] >= 0 && p[d] <= shape[d] - 1;
            p[d] = std::clamp(p[d], 0.0, shape[d] - 1.0);
        }
        want.push_back(within || !filled ? at(coefficients, spline, p[0], p[1], p[2]) : -3.0);
        linear.push_back(within || !filled ? at(x, tent, p[0], p[1], p[2]) : -3.0);
    }
    check::close("view", y, want, 2 * check::SUMMED);
    check::close("linear view", between, linear, 2 * check::SUMMED);
}

static void intensity(const Sides& shape) {
    check::what = "intensities of " + std::to_string(volume(shape)) + " voxels";
    const auto x = check::noise(volume(shape));
    const long long n = (long long)x.size();
    const std::vector<float> bell{0.1f, 0.2f, 0.3f, 0.25f, 0.15f};
    const unsigned seed = 3000000001u;
    auto gauss = x, rician = x, scaled = x, contrast = x, gamma = x, blurred = check::unfilled(x.size());
    std::vector<Moments> of(1), after(1);
    check::same_under_all_schedules(
        [&] {
            gauss = rician = scaled = contrast = gamma = x;
            std::vector<Moments> partial(2);
            std::vector<float> one(x.size()), two(x.size());
            RUN(view_noise, dim3{2}, 256, 0, gauss.data(), n, 0, 0.3f, (int)seed);
            RUN(view_noise, dim3{1}, 256, 0, rician.data(), n, 1, 0.3f, (int)seed);
            RUN(view_scale, dim3{2}, 256, 0, scaled.data(), n, -1.7f);
            RUN(view_sums, dim3{2}, 256, 8192, x.data(), n, partial.data());
            RUN(view_moments, dim3{1}, 32, 0, partial.data(), 2, n, of.data());
            RUN(view_contrast, dim3{2}, 256, 0, contrast.data(), n, 1.4f, of.data());
            RUN(view_gamma, dim3{2}, 256, 0, gamma.data(), n, 1.3f, of.data());
            RUN(view_sums, dim3{2}, 256, 8192, gamma.data(), n, partial.data());
            RUN(view_moments, dim3{1}, 32, 0, partial.data(), 2, n, after.data());
            RUN(view_restore, dim3{2}, 256, 0, gamma.data(), n, of.data(), after.data());
            RUN(view_blur, dim3{2}, 256, 0, x.data(), n, shape[0], (long long)shape[1] * shape[2], bell.data(), 2, one.data());
            RUN(view_blur, dim3{2}, 256, 0, one.data(), n, shape[1], (long long)shape[2], bell.data(), 2, two.data());
            RUN(view_blur, dim3{2}, 256, 0, two.data(), n, shape[2], 1LL, bell.data(), 2, blurred.data());
        },
        gauss, rician, scaled, contrast, gamma, blurred);
    double mean = 0, square = 0, low = 1e9, high = -1e9;
    for (double v : x) mean += v / n, low = std::min(low, v), high = std::max(high, v);
    for (double v : x) square += (v - mean) * (v - mean) / n;
    std::vector<double> want[6];
    const auto normal = [&](unsigned long long counter) {
        unsigned long long h = (((unsigned long long)seed << 32) ^ (counter + 1)) * 0x9e3779b97f4a7c15ULL;
        h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL, h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL, h ^= h >> 31;
        return std::sqrt(-2 * std::log(((h >> 40) + 1) / 16777217.0)) * std::cos(2 * M_PI * (h % (1 << 24)) / 16777216.0);
    };
    for (long long i = 0; i < n; i++) {
        const double v = x[i], p = v + 0.3 * normal(2 * i), q = 0.3 * normal(2 * i + 1);
        want[0].push_back(p), want[1].push_back(std::sqrt(p * p + q * q) * (v > 0 ? 1 : v < 0 ? -1 : 0));
        want[2].push_back(-1.7 * v), want[3].push_back(std::clamp((v - mean) * 1.4 + mean, low, high));
        want[4].push_back(std::pow((v - low) / (high - low + 1e-7), 1.3) * (high - low + 1e-7) + low);
    }
    double new_mean = 0, new_square = 0;
    for (double v : want[4]) new_mean += v / n;
    for (double v : want[4]) new_square += (v - new_mean) * (v - new_mean) / n;
    for (double& v : want[4]) v = (v - new_mean) * std::sqrt(square) / (std::sqrt(new_square) + 1e-8) + mean;
    const auto reflected = [](int i, int side) {
        for (; i < 0 || i >= side;) i = i < 0 ? -1 - i : 2 * side - 1 - i;
        return i;
    };
    for (int z = 0; z < shape[0]; z++)
        for (int v = 0; v < shape[1]; v++)
            for (int w = 0; w < shape[2]; w++) {
                double sum = 0;
                for (int k = 0; k < 125; k++) {
                    const int a = reflected(z + k / 25 - 2, shape[0]), b = reflected(v + k / 5 % 5 - 2, shape[1]), c = reflected(w + k % 5 - 2, shape[2]);
                    sum += (double)bell[k / 25] * bell[k / 5 % 5] * bell[k % 5] * x[((size_t)a * shape[1] + b) * shape[2] + c];
                }
                want[5].push_back(sum);
            }
    check::close("Gaussian noise", gauss, want[0], check::SUMMED);
    check::close("Rician noise", rician, want[1], check::SUMMED);
    check::close("scaled", scaled, want[2], check::SUMMED);
    check::close("contrast", contrast, want[3], check::SUMMED);
    check::close("gamma", gamma, want[4], 2 * check::SUMMED);
    check::close("blurred", blurred, want[5], check::SUMMED);
    check::close("deviation", std::vector<float>{(float)of[0].std}, {std::sqrt(square)}, check::SUMMED);
}

/// What only the augmentation of AMAES does.
static void artefacts(const Sides& shape) {
    check::what = "artefacts of " + std::to_string(volume(shape)) + " voxels";
    const auto x = check::noise(volume(shape));
    const long long n = (long long)x.size(), inner = (long long)shape[2];
    const View s = view_of(shape, {}, shape, shape, {}, false);
    const std::vector<float> bell{0.1f, 0.2f, 0.3f, 0.25f, 0.15f}, response = check::noise(2 * shape[1]);
    const unsigned seed = 3000000001u;
    const size_t count = volume({shape[0], kept(shape[1]), shape[2]});
    auto noisy = x, power = x, inverted = x, bias = x, unit = x, back = x, within = x;
    auto uniform = check::unfilled(x.size()), smooth = check::unfilled(count), spectral = check::unfilled(x.size());
    std::vector<Moments> of(1), tight{{0, 1, -0.5, 0.25}};
    check::same_under_all_schedules(
        [&] {
            noisy = power = inverted = bias = unit = back = within = x;
            std::vector<Moments> partial(2);
            RUN(view_sums, dim3{2}, 256, 8192, x.data(), n, partial.data());
            RUN(view_moments, dim3{1}, 32, 0, partial.data(), 2, n, of.data());
            RUN(view_noise, dim3{2}, 256, 0, noisy.data(), n, 8, 0.3f, (int)seed);
            RUN(view_power, dim3{2}, 256, 0, power.data(), n, 1.4f, 0, of.data());
            RUN(view_power, dim3{1}, 256, 0, inverted.data(), n, 0.6f, 1, of.data());
            RUN(view_bias, dim3{2}, 256, 0, bias.data(), s, 1.0f, 0.0f, 3.0f);
            RUN(view_range, dim3{2}, 256, 0, unit.data(), n, 1, of.data());
            RUN(view_range, dim3{2}, 256, 0, back.data(), n, 2, of.data());
            RUN(view_range, dim3{1}, 256, 0, within.data(), n, 0, tight.data());
            RUN(view_uniform, dim3{2}, 256, 0, n, 5LL, (int)seed, uniform.data());
            RUN(view_smooth, dim3{2}, 256, 0, x.data(), shape[1], inner, bell.data(), 2, (long long)count, smooth.data());
            RUN(view_spectral, dim3{2}, 256, 0, x.data(), n, shape[1], inner, response.data(), spectral.data());
        },
        noisy, power, inverted, bias, unit, back, within, uniform, smooth, spectral);
    const auto bits = [&](unsigned long long counter) {
        unsigned long long h = (((unsigned long long)seed << 32) ^ (counter + 1)) * 0x9e3779b97f4a7c15ULL;
        h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL, h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL;
        return h ^ (h >> 31);
    };
    const double low = *std::min_element(x.begin(), x.end()), high = *std::max_element(x.begin(), x.end()), range = high - low;
    std::vector<double> want[10];
    for (long long i = 0; i < n; i++) {
        const double v = x[i];
        const unsigned long long h = bits(2 * i);
        const double normal = std::sqrt(-2 * std::log(((h >> 40) + 1) / 16777217.0)) * std::cos(2 * M_PI * (h % (1 << 24)) / 16777216.0);
        want[0].push_back(v * (1 + 0.3 * normal));
        want[1].push_back(std::pow((v - low) / range, 1.4) * range + low), want[2].push_back(high - std::pow((high - v) / range, 0.6) * range);
        const double at[3] = {(double)(i / shape[2] / shape[1]) - 1, (double)(i / shape[2] % shape[1]), (double)(i % shape[2]) - 3};
        double factor = 1;
        for (int d = 0; d < 3; d++) factor -= at[d] * at[d] / shape[d] / shape[d];
        want[3].push_back(v * factor), want[4].push_back((v - low) / range), want[5].push_back(v * range + low);
        want[6].push_back(std::clamp(v, -0.5, 0.25)), want[7].push_back(2 * ((bits(i + 5) >> 40) / 16777216.0) - 1);
        double re = 0, im = 0;
        const int y = (int)(i / inner % shape[1]);
        for (int j = 0; j < shape[1]; j++) {
            const double other = x[i + (j - y) * inner];
            const int k = (y - j + shape[1]) % shape[1];
            re += response[k] * other, im += response[shape[1] + k] * other;
        }
        want[9].push_back(std::sqrt(re * re + im * im));
    }
    for (size_t i = 0; i < count; i++) {
        const int z = (int)(i / inner / kept(shape[1])), y = (int)(i / inner % kept(shape[1])) * 4, w = (int)(i % inner);
        double sum = 0;
        for (int j = std::max(0, y - 2); j <= std::min(shape[1] - 1, y + 2); j++) sum += bell[j - y + 2] * (double)x[(z * shape[1] + j) * inner + w];
        want[8].push_back(sum);
    }
    check::close("multiplicative noise", noisy, want[0], check::SUMMED);
    check::close("power", power, want[1], check::SUMMED);
    check::close("inverted power", inverted, want[2], check::SUMMED);
    check::close("bias", bias, want[3], check::SUMMED);
    check::close("unit", unit, want[4], check::SUMMED);
    check::close("back", back, want[5], check::SUMMED);
    check::close("within", within, want[6], check::SUMMED);
    check::close("uniform", uniform, want[7], check::SUMMED);
    check::close("smooth", smooth, want[8], check::SUMMED);
    check::close("spectral", spectral, want[9], check::SUMMED);
}

static void nearest(const Sides& size, const Sides& small) {
    check::what = "nearest voxels";
    std::array<double, 12> ratio{};
    for (int d = 0; d < 3; d++) ratio[5 * d] = (double)size[d] / small[d];
    const auto x = check::noise(volume(size));
    auto y = check::unfilled(volume(small));
    const View s = view_of(size, {}, size, small, ratio, false);
    check::same_under_all_schedules([&] { RUN(view_nearest, dim3{2}, 256, 0, s, x.data(), y.data()); }, y);
    std::vector<double> want;
    for (size_t i = 0; i < y.size(); i++) {
        const int at[3] = {(int)(i / small[2] / small[1]), (int)(i / small[2] % small[1]), (int)(i % small[2])};
        size_t from = 0;
        for (int d = 0; d < 3; d++) from = from * size[d] + (int)((2 * at[d] + 1) * size[d] / (2 * small[d]));
        want.push_back(x[from]);
    }
    check::close("nearest", y, want, 0);
}

int main() {
    crop({1, 1, 1}, {1, -1, 2});
    crop({-1, 1, -1}, {5, -2, 8});
    const std::array<double, 12> turned{0.9, 0.06, -0.03, 0.9, -0.05, 0.92, 0.02, 0.6, 0.04, -0.02, 0.97, 1.3};
    interpolation({6, 5, 21}, {0, 0, 0}, {6, 5, 21}, turned, true);
    interpolation({6, 5, 17}, {1, 2, 4}, {8, 9, 25}, turned, true);
    interpolation({6, 5, 21}, {0, 0, 0}, {6, 5, 21}, turned, true, true);
    interpolation({1, 4, 30}, {0, 0, 0}, {1, 4, 30}, {0.2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1.6, 0}, false);
    intensity({5, 6, 7});
    intensity({1, 2, 300});
    artefacts({3, 9, 5});
    artefacts({2, 1, 300});
    nearest({7, 5, 9}, {5, 3, 8});
    return check::report("view");
}

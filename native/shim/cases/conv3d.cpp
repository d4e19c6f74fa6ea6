// The kernels of ops/conv3d against loop nests, over the shape table.
#include KERNEL
#include "check.h"

using check::Grid;

/// A convolution (or transposed one: 2x2x2, stride 2) on a grid; `side` is the block side of the coarse end.
struct Case {
    int side[3], c_in, c_out, kernel, stride;
    bool transposed = false;
};

/// Which voxels a launch reads and writes, beside its channels.
struct Access {
    int stride = 1, pad = 0, reach = 1, spread = 1;
    int parity[3] = {0, 0, 0};
    std::vector<std::array<int, 3>> taps{};  // place in the halo
    std::vector<int> source{};               // of each tap in the file
};

static int padded(int n) { return (n + 31) / 32 * 32; }
static int product(const int (&v)[3]) { return v[0] * v[1] * v[2]; }

/// Tiles as large as `rows` and a halo of `limit` voxels allow, several blocks per tile where blocks are small.
static Conv geometry(const Grid& grid, const int (&side)[3], int c_in, int c_out, const Access& access, int rows, int limit) {
    Conv g{};
    g.blocks = grid.blocks;
    g.stride = access.stride, g.pad = access.pad, g.spread = access.spread;
    g.c_in = c_in, g.c_out = c_out, g.in_padded = padded(c_in), g.out_padded = padded(c_out);
    auto volume = [&](int d, int size) {
        int voxels = 1;
        for (int e = 0; e < 3; e++) voxels *= ((e == d ? size : g.tile[e]) - 1) * g.stride + access.reach;
        return voxels;
    };
    for (int d = 0; d < 3; d++) g.side[d] = side[d], g.parity[d] = access.parity[d], g.tile[d] = 1;
    for (bool grown = true; grown;) {
        grown = false;
        for (int d = 2; d >= 0; d--) {
            const int size = std::min(2 * g.tile[d], side[d]);
            if (size == g.tile[d] || product(g.tile) / g.tile[d] * size > rows || volume(d, size) > limit) continue;
            g.tile[d] = size;
            grown = true;
        }
    }
    const bool whole = product(g.tile) == product(g.side);
    g.parts = whole ? std::max(1, std::min({g.blocks, rows / product(g.tile), limit / volume(0, g.tile[0])})) : 1;
    for (int d = 0; d < 3; d++) g.halo[d] = (g.tile[d] - 1) * g.stride + access.reach;
    for (int i = 0; i < 3; i++) {
        const auto inside = [&](const int (&v)[3]) { return i == 0 ? product(v) : i == 1 ? v[1] * v[2] : v[2]; };
        g.of_tile[i] = ((1 << 21) + inside(g.tile) - 1) / inside(g.tile);
        g.of_halo[i] = ((1 << 21) + inside(g.halo) - 1) / inside(g.halo);
    }
    for (const auto& tap : access.taps) g.offset[g.taps++] = (tap[0] * g.halo[1] + tap[1]) * g.halo[2] + tap[2];
    return g;
}

static Pack packing(const Conv& g, const Access& access, int file_taps, bool turned) {
    Pack p{g.c_in, g.c_out, g.in_padded, g.out_padded, turned, g.taps, file_taps, {}};
    std::copy(access.source.begin(), access.source.end(), p.source);
    return p;
}

/// Bytes of the halo and of the tables of where it and the rows lie; of the weight gradient.
static size_t staged_bytes(const Conv& g, int rows) { return (size_t)halo_voxels(g) * (CHANNELS * 2 + 4) + rows * 4; }
static size_t grad_bytes(const Conv& g) { return 2 * (halo_voxels(g) + GRAD_ROWS) * CHANNELS * 2 + (halo_voxels(g) + GRAD_ROWS) * 4; }

/// A tensor of c channels as kernels take it, or its two parts where it is of 40: 8 and 32 channels.
template <class E> struct Parts {
    std::vector<std::remove_const_t<E>> a, b;
    Joined<E> joined;
    Parts(E* whole, size_t values, int c) : joined{whole, nullptr, c} {
        if (c != 40) return;
        a = check::unfilled_of<std::remove_const_t<E>>(values / 40 * 8), b = check::unfilled_of<std::remove_const_t<E>>(values / 40 * 32);
        for (size_t i = 0; i < values; i++) (i % 40 < 8 ? a[i / 40 * 8 + i % 40] : b[i / 40 * 32 + i % 40 - 8]) = whole[i];
        joined = {a.data(), b.data(), 8};
    }
    void join(std::remove_const_t<E>* whole) const {
        for (size_t i = 0; i < a.size() * 5; i++) whole[i] = i % 40 < 8 ? a[i / 40 * 8 + i % 40] : b[i / 40 * 32 + i % 40 - 8];
    }
};

/// Packs the weights and convolves, in tiles of `rows`; 64 output channels per block where they divide.
template <class E>
static void convolve(const Grid& grid, const Conv& g, int rows, const Pack& p, const std::vector<E>& x,
                     const std::vector<float>& w, const float* bias, std::vector<E>& y, float* of_tiles = nullptr) {
    std::vector<bf16> packed = check::unfilled16((size_t)p.taps * p.in_padded * p.out_padded);
    RUN(conv3d_pack, (dim3{(unsigned)p.out_padded / 32, (unsigned)p.in_padded / 8}), 256, 1024u * p.file_taps, p, w.data(), packed.data());
    const unsigned tiles = tile_count(g);
    const int* neighbours = grid.neighbours.data();
    const int wide = g.out_padded % 64 == 0 ? 64 : 32;
    const size_t bytes = staged_bytes(g, rows) + AHEAD * CHANNELS * wide * 2;
    const unsigned threads = rows * wide / 64;
    const dim3 blocks{tiles, (unsigned)(g.out_padded / wide)};
    const Parts<const E> from(x.data(), x.size(), g.c_in);
    const Parts<E> to(y.data(), y.size(), g.c_out);
    if (wide == 64) RUN_OF(E, conv3d_64, blocks, threads, bytes, g, from.joined, neighbours, packed.data(), bias, to.joined, of_tiles);
    else RUN_OF(E, conv3d_32, blocks, threads, bytes, g, from.joined, neighbours, packed.data(), bias, to.joined, of_tiles);
    to.join(y.data());
}

template <class E>
static void weight_gradient(const Grid& grid, const Conv& g, const Pack& p, const std::vector<E>& x,
                            const std::vector<E>& dy, std::vector<float>& dw) {
    const unsigned splits = std::min(3, tile_count(g)), shares = g.taps == 1 ? 4 : 1;
    std::vector<float> partial = check::unfilled((size_t)splits * shares * g.taps * g.in_padded * g.out_padded);
    const dim3 blocks{splits, (unsigned)g.in_padded / 32, (unsigned)g.out_padded / 32};
    const size_t bytes = grad_bytes(g);
    const int* neighbours = grid.neighbours.data();
    const Parts<const E> from(x.data(), x.size(), g.c_in);
    if (g.taps == 1) RUN_OF(E, conv3d_weight_1, blocks, 128, bytes, g, from.joined, neighbours, dy.data(), partial.data());
    else RUN_OF(E, conv3d_weight_27, blocks, 288, bytes, g, from.joined, neighbours, dy.data(), partial.data());
    RUN(conv3d_weight_sum, dim3{((unsigned)dw.size() + 31) / 32}, 256, 1024, p, partial.data(), (int)(splits * shares), dw.data());
}

/// Taps of a kernel as the forward pass reads them.
static Access all_taps(int kernel, int stride, int pad) {
    Access a{.stride = stride, .pad = pad, .reach = kernel};
    for (int t = 0; t < kernel * kernel * kernel; t++) {
        a.taps.push_back({t / (kernel * kernel), t / kernel % kernel, t % kernel});
        a.source.push_back(t);
    }
    return a;
}

/// Taps through which input voxel 2i + parity of a stride-2, 3x3x3 convolution reaches outputs.
static Access reaching(int parity) {
    const std::vector<std::pair<int, int>> even{{1, 1}}, odd{{0, 2}, {2, 1}};  // tap in the file, place in the halo
    Access a{.pad = 1, .reach = 3, .spread = 2, .parity = {parity >> 2, parity >> 1 & 1, parity & 1}};
    for (auto [tz, oz] : a.parity[0] ? odd : even)
        for (auto [ty, oy] : a.parity[1] ? odd : even)
            for (auto [tx, ox] : a.parity[2] ? odd : even) {
                a.taps.push_back({oz, oy, ox});
                a.source.push_back(tz * 9 + ty * 3 + tx);
            }
    return a;
}

/// The judge: for every fine voxel, coarse voxel and tap that belong together, `f(fine, coarse, tap)`.
template <class F> static void each_pair(const Case& c, const Grid& grid, F f) {
    const int k = c.kernel, pad = c.transposed ? 0 : k / 2;
    const long size = product(c.side), fine_size = size * c.stride * c.stride * c.stride;
    for (int block = 0; block < grid.blocks; block++)
        for (int v = 0; v < size; v++)
            for (int t = 0; t < k * k * k; t++) {
                const int o[3] = {v / (c.side[1] * c.side[2]), v / c.side[2] % c.side[1], v % c.side[2]};
                const int tap[3] = {t / (k * k), t / k % k, t % k};
                int neighbour = 0;
                long voxel = 0;
                for (int d = 0; d < 3; d++) {
                    const int side = c.side[d] * c.stride, p = o[d] * c.stride + tap[d] - pad;
                    neighbour = neighbour * 3 + 1 + (p >= side) - (p < 0);
                    voxel = voxel * side + (p + side) % side;
                }
                const int other = grid.neighbours[block * 27 + neighbour];
                if (other >= 0) f(other * fine_size + voxel, block * size + v, t);
            }
}

/// A value as the product sees it.
template <class E> static double operand(E v) { return from_bf16(to_bf16(number(v))); }

template <class E> static void run(const Case& c, const check::Mask& mask) {
    const Grid grid(mask.samples, mask.dims, mask.visible);
    check::what = check::name_of<E>() + "conv3d " + std::to_string(c.kernel) + "^3 stride " + std::to_string(c.stride) +
                  (c.transposed ? " transposed" : "") + ", side " + std::to_string(c.side[0]) + " " +
                  std::to_string(c.side[1]) + " " + std::to_string(c.side[2]) + ", channels " +
                  std::to_string(c.c_in) + " to " + std::to_string(c.c_out) + ", " + mask.name;
    const int taps = c.kernel * c.kernel * c.kernel;
    const size_t coarse = (size_t)grid.blocks * product(c.side), fine = coarse * c.stride * c.stride * c.stride;
    const int fine_c = c.transposed ? c.c_out : c.c_in, coarse_c = c.transposed ? c.c_in : c.c_out;
    // `at_fine` is x of a convolution and dy of a transposed one; `at_coarse` the other; weight [coarse][fine][taps].
    const auto at_fine = check::noise_of<E>(fine * fine_c), at_coarse = check::noise_of<E>(coarse * coarse_c);
    const auto w = check::noise((size_t)coarse_c * fine_c * taps), bias = check::noise(c.c_out);
    std::vector<double> to_coarse(at_coarse.size()), to_fine(at_fine.size()), want_w(w.size());
    each_pair(c, grid, [&](long f, long o, int t) {
        for (int a = 0; a < coarse_c; a++)
            for (int b = 0; b < fine_c; b++) {
                const size_t at = ((size_t)a * fine_c + b) * taps + t;
                const double weight = operand(w[at]);
                to_coarse[o * coarse_c + a] += operand(at_fine[f * fine_c + b]) * weight;
                to_fine[f * fine_c + b] += operand(at_coarse[o * coarse_c + a]) * weight;
                want_w[at] += (double)operand(at_fine[f * fine_c + b]) * operand(at_coarse[o * coarse_c + a]);
            }
    });
    auto& output = c.transposed ? to_fine : to_coarse;
    for (size_t i = 0; i < output.size(); i++) output[i] += bias[i % c.c_out];

    auto got_coarse = check::unfilled_of<E>(at_coarse.size()), got_fine = check::unfilled_of<E>(at_fine.size());
    auto got_w = check::unfilled(w.size());
    const Access down = all_taps(c.kernel, c.stride, c.transposed ? 0 : c.kernel / 2);
    std::vector<Access> up;  // from the coarse end to the fine one
    if (c.transposed) {
        for (int p = 0; p < 8; p++) {
            up.push_back({.spread = 2, .parity = {p >> 2, p >> 1 & 1, p & 1}, .taps = {{0, 0, 0}}, .source = {p}});
        }
    } else if (c.stride == 2) {
        for (int p = 0; p < 8; p++) up.push_back(reaching(p));
    } else {
        up.push_back(down);
        std::reverse(up[0].source.begin(), up[0].source.end());
    }
    auto sums = check::unfilled(coarse_c);
    std::vector<double> want_sums(coarse_c);
    for (size_t i = 0; i < at_coarse.size(); i++) want_sums[i % coarse_c] += number(at_coarse[i]);
    // Mean and variance of each tile, where all tiles are full.
    const int rows = check::cases % 2 ? 256 : 128;  // of a tile: both take turns
    const Conv whole = geometry(grid, c.side, fine_c, coarse_c, down, rows, 1280);
    bool even = !c.transposed && grid.blocks % whole.parts == 0;
    for (int d = 0; d < 3; d++) even = even && whole.side[d] % whole.tile[d] == 0;
    const int tiles = tile_count(whole), groups = even ? grid.blocks / whole.parts : 0;
    auto of_tiles = check::unfilled(even ? (size_t)2 * tiles * coarse_c : 0);
    check::same_under_all_schedules(
        [&] {
            const int slice = 29, slices = ((int)coarse + slice - 1) / slice;
            auto partial = check::unfilled((size_t)slices * coarse_c);
            const dim3 slicing{(unsigned)slices, 1, check::row_groups<E>(coarse_c)};
            RUN_OF(E, conv3d_bias, slicing, 256, check::row_bytes<E>(coarse_c), at_coarse.data(), (long long)coarse, coarse_c, slice, partial.data());
            RUN(conv3d_bias_fold, check::folding(coarse_c), 256, 0, partial.data(), slices, coarse_c, sums.data());
            const Conv g = geometry(grid, c.side, fine_c, coarse_c, down, rows, 1280);
            convolve(grid, g, rows, packing(g, down, taps, false), at_fine, w, c.transposed ? nullptr : bias.data(), got_coarse,
                     even ? of_tiles.data() : nullptr);
            for (const Access& access : up) {
                const Conv g = geometry(grid, c.side, coarse_c, fine_c, access, rows, 1280);
                convolve(grid, g, rows, packing(g, access, taps, true), at_coarse, w, c.transposed ? bias.data() : nullptr, got_fine);
            }
            const Conv s = geometry(grid, c.side, fine_c, coarse_c, down, GRAD_ROWS, GRAD_HALO);
            weight_gradient(grid, s, packing(s, down, taps, false), at_fine, at_coarse, got_w);
        },
        got_coarse, got_fine, got_w, sums, of_tiles);
    check::close(c.transposed ? "dx" : "y", got_coarse, to_coarse, check::tolerance_of<E>);
    check::close(c.transposed ? "y" : "dx", got_fine, to_fine, check::tolerance_of<E>);
    // The tiles of a group of blocks have together the mean and the variance of its voxels.
    std::vector<float> got_mean, got_variance;
    std::vector<double> want_mean, want_variance;
    for (int i = 0; i < groups * coarse_c; i++) {
        const int first = i / coarse_c, a = i % coarse_c, each = tiles / groups, rows = (int)coarse / groups;
        double mean = 0, variance = 0, own_mean = 0, own_variance = 0;
        const auto tile = [&](int half, int t) { return (double)of_tiles[((size_t)half * tiles + first * each + t) * coarse_c + a]; };
        for (int t = 0; t < each; t++) own_mean += tile(0, t) / each;
        for (int t = 0; t < each; t++) own_variance += (tile(1, t) + std::pow(tile(0, t) - own_mean, 2)) / each;
        for (int v = 0; v < rows; v++) mean += to_coarse[((size_t)first * rows + v) * coarse_c + a] / rows;
        for (int v = 0; v < rows; v++) variance += std::pow(to_coarse[((size_t)first * rows + v) * coarse_c + a] - mean, 2) / rows;
        got_mean.push_back((float)own_mean), got_variance.push_back((float)own_variance);
        want_mean.push_back(mean), want_variance.push_back(variance);
    }
    check::close("means of tiles", got_mean, want_mean, check::SUMMED);
    check::close("variances of tiles", got_variance, want_variance, check::SUMMED);
    check::close("sums of rows", sums, want_sums, check::SUMMED);
    check::close("dw", got_w, want_w, check::SUMMED);
}

/// A norm with its activation applied where the convolution loads, forward and in the weight gradient, against the kernels that
/// read what the norm would have stored.
static void run_normed(const Case& c, const check::Mask& mask) {
    const Grid grid(mask.samples, mask.dims, mask.visible);
    check::what = "normed convolution, " + std::to_string(c.c_in) + " to " + std::to_string(c.c_out) + " channels, stride " +
                  std::to_string(c.stride) + ", " + mask.name;
    const int volume = product(c.side), finer = volume * c.stride * c.stride * c.stride, lines = mask.samples * c.c_in;
    const auto x = check::noise16((size_t)grid.blocks * finer * c.c_in), dy = check::noise16((size_t)grid.blocks * volume * c.c_out);
    auto statistics = check::noise(2 * lines);
    for (int i = lines; i < 2 * lines; i++) statistics[i] = 1.5f + statistics[i];
    const auto gamma = check::noise(c.c_in), beta = check::noise(c.c_in), w = check::noise((size_t)c.c_in * c.c_out * 27);
    const Normed norm{statistics.data(), gamma.data(), beta.data(), grid.starts.data(), mask.samples, 0.01f};
    std::vector<bf16> made(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        const int channel = i % c.c_in, of = sample_of(grid.starts.data(), i / finer / c.c_in) * c.c_in + channel;
        const double v = ((double)from_bf16(x[i]) - statistics[of]) * statistics[lines + of] * gamma[channel] + beta[channel];
        made[i] = to_bf16((float)(v > 0 ? v : 0.01 * v));
    }
    const Access all = all_taps(3, c.stride, 1);
    const int rows = check::cases % 2 ? 256 : 128;
    Conv g = geometry(grid, c.side, c.c_in, c.c_out, all, rows, 1280), s = geometry(grid, c.side, c.c_in, c.c_out, all, GRAD_ROWS, GRAD_HALO);
    g.parts = s.parts = 1;  // tiles of one sample
    const Pack p = packing(g, all, 27, false);
    const int* neighbours = grid.neighbours.data();
    auto y = check::unfilled16(dy.size()), plain = y;
    auto dw = check::unfilled(w.size()), plain_w = dw;
    const auto launches = [&](bool normed, std::vector<bf16>& to, std::vector<float>& to_w) {
        std::vector<bf16> packed = check::unfilled16((size_t)27 * p.in_padded * p.out_padded);
        RUN(conv3d_pack, (dim3{(unsigned)p.out_padded / 32, (unsigned)p.in_padded / 8}), 256, 1024u * p.file_taps, p, w.data(), packed.data());
        const int wide = g.out_padded % 64 == 0 ? 64 : 32, splits = std::min(3, tile_count(s));
        const size_t bytes = staged_bytes(g, rows) + AHEAD * CHANNELS * wide * 2;
        const unsigned threads = rows * wide / 64;
        const dim3 blocks{(unsigned)tile_count(g), (unsigned)(g.out_padded / wide)};
        const bf16* from = x.data();
        const Joined<const bf16> plain{made.data(), nullptr, c.c_in};
        const Joined<bf16> out{to.data(), nullptr, c.c_out};
        if (!normed && wide == 64) RUN(conv3d_64, blocks, threads, bytes, g, plain, neighbours, packed.data(), nullptr, out, nullptr);
        else if (!normed) RUN(conv3d_32, blocks, threads, bytes, g, plain, neighbours, packed.data(), nullptr, out, nullptr);
        else if (wide == 64) RUN(conv3d_64_normed, blocks, threads, bytes, g, from, norm, neighbours, packed.data(), nullptr, out, nullptr);
        else RUN(conv3d_32_normed, blocks, threads, bytes, g, from, norm, neighbours, packed.data(), nullptr, out, nullptr);
        auto partial = check::unfilled((size_t)splits * 27 * s.in_padded * s.out_padded);
        const dim3 cuts{(unsigned)splits, (unsigned)s.in_padded / 32, (unsigned)s.out_padded / 32};
        const size_t held = grad_bytes(s);
        if (normed) RUN(conv3d_weight_27_normed, cuts, 288, held, s, from, norm, neighbours, dy.data(), partial.data());
        else RUN(conv3d_weight_27, cuts, 288, held, s, plain, neighbours, dy.data(), partial.data());
        RUN(conv3d_weight_sum, dim3{((unsigned)to_w.size() + 31) / 32}, 256, 1024, p, partial.data(), splits, to_w.data());
    };
    launches(false, plain, plain_w);
    check::same_under_all_schedules([&] { launches(true, y, dw); }, y, dw);
    std::vector<double> want, want_w(plain_w.begin(), plain_w.end());
    for (bf16 v : plain) want.push_back(check::value(v));
    check::close("y", y, want, check::STORED);
    check::close("dw", dw, want_w, 1e-3);  // a value on an edge of bf16 may be rounded the other way
}

int main() {
    const Case cases[] = {
        {{4, 4, 8}, 32, 32, 3, 1},   {{3, 5, 7}, 16, 64, 3, 1},       {{1, 1, 1}, 40, 33, 3, 1},
        {{2, 2, 2}, 64, 32, 3, 1},   {{2, 3, 5}, 1, 5, 3, 1},         {{4, 4, 4}, 32, 32, 3, 2},
        {{3, 1, 5}, 3, 40, 3, 2},    {{5, 4, 6}, 24, 17, 1, 1},       {{1, 1, 1}, 8, 64, 1, 1},
        {{2, 3, 2}, 48, 20, 2, 2, true},
    };
    for (const Case& c : cases) {
        for (const auto& mask : check::MASKS) run<bf16>(c, mask);
        run<float>(c, check::MASKS[2]);  // only loads and stores differ
    }
    run_normed({{4, 4, 8}, 32, 32, 3, 1}, check::MASKS[2]);
    run_normed({{3, 5, 7}, 40, 64, 3, 1}, check::MASKS[2]);
    run_normed({{2, 2, 4}, 32, 40, 3, 2}, check::MASKS[3]);
    return check::report("conv3d");
}

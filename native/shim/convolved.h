// 3^3 convolutions of stride 1 by a loop nest, in f64: the judge of the kernels on wgmma.
#pragma once
#include "check.h"

/// conv(x) + bias `[blocks][z][y][x][c_out]` from x `[blocks][z][y][x][c_in]` (bf16), w `[c_out][c_in][27]`; turned: the gradient
/// of x of a convolution from `c_out` to `c_in` channels, w `[c_in][c_out][27]`. No bias: empty.
inline std::vector<double> convolved(const check::Grid& grid, const int (&side)[3], int c_in, int c_out, bool turned,
                                     const std::vector<bf16>& x, const std::vector<float>& w, const std::vector<float>& bias) {
    const int volume = side[0] * side[1] * side[2], rows = grid.blocks * volume;
    std::vector<double> y;
    for (int row = 0; row < rows; row++) {
        const int block = row / volume, v = row % volume;
        const int at[3] = {v / (side[1] * side[2]), v / side[2] % side[1], v % side[2]};
        std::vector<double> sums(c_out);
        for (int o = 0; o < c_out; o++) sums[o] = bias.empty() ? 0 : bias[o];
        for (int tap = 0; tap < 27; tap++) {
            int neighbour = 0, from = 0;
            const int step[3] = {tap / 9 - 1, tap / 3 % 3 - 1, tap % 3 - 1};
            for (int d = 0; d < 3; d++) {
                const int p = at[d] + step[d], where = p < 0 ? 0 : p < side[d] ? 1 : 2;
                neighbour = neighbour * 3 + where;
                from = from * side[d] + p - (where - 1) * side[d];
            }
            const int source = grid.neighbours[block * 27 + neighbour];
            if (source < 0) continue;
            for (int i = 0; i < c_in; i++) {
                const double a = check::value(x[((size_t)source * volume + from) * c_in + i]);
                for (int o = 0; o < c_out; o++) {
                    sums[o] += a * (turned ? w[((size_t)i * c_out + o) * 27 + 26 - tap] : w[((size_t)o * c_in + i) * 27 + tap]);
                }
            }
        }
        y.insert(y.end(), sums.begin(), sums.end());
    }
    return y;
}

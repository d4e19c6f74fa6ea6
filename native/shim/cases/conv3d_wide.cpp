// The convolution of many channels against a loop nest, forward and with turned weights, over the masks of the shape table.
#include "convolved.h"
#include KERNEL

static void run(const check::Mask& mask, const int (&side)[3], int c_in, int c_out, bool turned, bool biased) {
    check::what = "wide 3^3, side " + std::to_string(side[0]) + " " + std::to_string(side[1]) + " " + std::to_string(side[2]) +
                  ", channels " + std::to_string(c_in) + " to " + std::to_string(c_out) + (turned ? ", turned, " : ", ") + mask.name;
    const check::Grid grid(mask.samples, mask.dims, mask.visible);
    const Wide g{grid.blocks, {side[0], side[1], side[2]}, c_in, c_out};
    const int volume = side[0] * side[1] * side[2], rows = grid.blocks * volume;
    const unsigned groups = (c_out + COLUMNS - 1) / COLUMNS;
    const auto x = check::noise16((size_t)rows * c_in);
    auto w = check::noise((size_t)c_in * c_out * 27);
    for (float& v : w) v = from_bf16(to_bf16(v));
    const auto bias = check::noise(c_out);
    auto packed = check::unfilled16((size_t)groups * COLUMNS * 27 * c_in);
    auto y = check::unfilled16((size_t)rows * c_out);
    check::same_under_all_schedules(
        [&] {
            RUN(conv3d_wide_pack, dim3{3}, 256, 0, w.data(), c_in, c_out, turned, packed.data());
            RUN(conv3d_wide, (dim3{unsigned(rows + ROWS - 1) / ROWS, groups}), 256, BUFFERS * BUFFER, g, x.data(),
                grid.neighbours.data(), packed.data(), biased ? bias.data() : nullptr, y.data());
        },
        y);
    const auto want = convolved(grid, side, c_in, c_out, turned, x, w, biased ? bias : std::vector<float>());
    check::close("y", y, want, check::STORED);
}

int main() {
    run(check::MASKS[0], {3, 5, 7}, 64, 40, false, true);
    run(check::MASKS[2], {2, 3, 3}, 64, 130, true, false);
    run(check::MASKS[3], {1, 1, 1}, 128, 64, false, true);
    return check::report("conv3d_wide");
}

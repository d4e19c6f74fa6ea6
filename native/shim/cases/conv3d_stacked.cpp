// The stacked convolution against a loop nest, forward and with turned weights, over the masks of the shape table.
#include "convolved.h"
#include KERNEL

static void run(const check::Mask& mask, const int (&side)[3], int c_in, int c_out, bool turned, bool biased) {
    check::what = "stacked 3^3, side " + std::to_string(side[0]) + " " + std::to_string(side[1]) + " " + std::to_string(side[2]) +
                  ", channels " + std::to_string(c_in) + " to " + std::to_string(c_out) + (turned ? ", turned, " : ", ") + mask.name;
    const check::Grid grid(mask.samples, mask.dims, mask.visible);
    const Stacked g{grid.blocks, {side[0], side[1], side[2]}, c_in, c_out};
    const int volume = side[0] * side[1] * side[2], groups = (c_out + 31) / 32;
    const auto x = check::noise16((size_t)grid.blocks * volume * c_in);
    auto w = check::noise((size_t)c_in * c_out * 27);
    for (float& v : w) v = from_bf16(to_bf16(v));
    const auto bias = check::noise(c_out);
    auto packed = check::unfilled16((size_t)groups * 9 * COLUMNS * c_in);
    auto y = check::unfilled16((size_t)grid.blocks * volume * c_out);
    check::same_under_all_schedules(
        [&] {
            RUN(conv3d_stacked_pack, dim3{3}, 256, 0, w.data(), c_in, c_out, turned, packed.data());
            const unsigned tiles = side[1] / TILE_Y * (side[2] / TILE_X);
            RUN(conv3d_stacked, (dim3{grid.blocks * tiles, (unsigned)groups}), 256, stacked_bytes(g), g, x.data(),
                grid.neighbours.data(), packed.data(), biased ? bias.data() : nullptr, y.data());
        },
        y);
    const auto want = convolved(grid, side, c_in, c_out, turned, x, w, biased ? bias : std::vector<float>());
    check::close("y", y, want, check::STORED);
}

int main() {
    run(check::MASKS[0], {3, 8, 16}, 32, 32, false, true);
    run(check::MASKS[3], {1, 16, 16}, 64, 32, false, false);
    run({"two blocks along z", 1, {2, 1, 1}, [](int) { return true; }}, {2, 8, 32}, 32, 40, true, false);
    run({"two samples, one block hidden", 2, {1, 1, 2}, [](int i) { return i != 2; }}, {2, 8, 16}, 32, 32, true, true);
    return check::report("conv3d_stacked");
}

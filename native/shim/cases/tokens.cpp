// Tokens of two volumes: some listed, then all as one block a sample; values against the contract, in f64.
#include "check.h"
#include KERNEL

template <class T> void run(const char* name, std::vector<std::array<int, 4>> blocks, int samples, const int (&side)[3],
                            const int (&dims)[3], int token, int c, int heads) {
    check::what = name;
    const int per = side[0] * side[1] * side[2], rows = (int)blocks.size() * per, cells = dims[0] * dims[1] * dims[2];
    const Tokens s{rows, {side[0], side[1], side[2]}, {dims[0], dims[1], dims[2]}, samples};
    const int cube = token * token * token, width = c * cube, channels = heads * 6;
    const int* const list = blocks[0].data();
    std::vector<std::array<int, 3>> at;
    std::vector<int> sample, rows_of(samples * cells, -1);
    for (int row = 0; row < rows; row++) {
        const auto& b = blocks[row / per];
        const int in = row % per, offset[3] = {in / (side[1] * side[2]), in / side[2] % side[1], in % side[2]};
        sample.push_back(b[0]);
        at.push_back({b[1] * side[0] + offset[0], b[2] * side[1] + offset[1], b[3] * side[2] + offset[2]});
        rows_of[b[0] * cells + (at[row][0] * dims[1] + at[row][1]) * dims[2] + at[row][2]] = row;
    }
    const auto x = check::noise_of<T>((size_t)samples * cells * width), dy = check::noise_of<T>((size_t)rows * width);
    const auto u = check::noise_of<T>(rows * channels);
    const auto table = check::noise(cells * channels);
    std::vector<float> turns;
    for (int axis = 0; axis < 3; axis++)
        for (int position = 0; position < dims[axis]; position++) {
            turns.push_back(std::cos((float)position));  // one pair per axis
            turns.push_back(std::sin((float)position));
        }
    auto y = check::unfilled_of<T>((size_t)rows * width), placed = check::unfilled_of<T>(rows * channels), turned = placed, back = placed;
    auto dx = std::vector<T>((size_t)samples * cells * width, 0);
    auto dtable = check::unfilled(cells * channels);
    check::same_under_all_schedules(
        [&] {
            RUN_OF(T, patchify, dim3{2}, 256, 0, s, list, token, c, x.data(), y.data());
            RUN_OF(T, patchify_grad, dim3{3}, 256, 0, s, list, token, c, dy.data(), dx.data());
            RUN_OF(T, positions, dim3{1}, 256, 0, s, list, channels, u.data(), table.data(), placed.data());
            RUN_OF(T, positions_grad, dim3{2}, 256, 0, s, rows_of.data(), channels, u.data(), dtable.data());
            RUN_OF(T, rope, dim3{1}, 256, 0, s, list, turns.data(), 1, heads, 1.0f, u.data(), turned.data());
            RUN_OF(T, rope, dim3{1}, 256, 0, s, list, turns.data(), 1, heads, -1.0f, u.data(), back.data());
        },
        y, dx, placed, dtable, turned, back);
    std::vector<double> want_y(y.size()), want_dx(dx.size()), want_placed(placed.size()), want_table(dtable.size()), want_turned(turned.size()), want_back(back.size());
    for (int row = 0; row < rows; row++) {
        const auto& p = at[row];
        for (int k = 0; k < c; k++)
            for (int v = 0; v < cube; v++) {
                const int voxel[3] = {p[0] * token + v / (token * token), p[1] * token + v / token % token, p[2] * token + v % token};
                size_t from = sample[row];
                for (int d = 0; d < 3; d++) from = from * dims[d] * token + voxel[d];
                want_y[(size_t)row * width + k * cube + v] = check::value(x[from * c + k]);
                want_dx[from * c + k] = check::value(dy[(size_t)row * width + k * cube + v]);
            }
        const int cell = (p[0] * dims[1] + p[1]) * dims[2] + p[2];
        for (int i = 0; i < channels; i++) {
            want_placed[row * channels + i] = check::value(u[row * channels + i]) + table[cell * channels + i];
            want_table[cell * channels + i] += check::value(u[row * channels + i]);
        }
        for (int pair = 0; pair < channels / 2; pair++) {
            const double angle = p[pair % 3], a = check::value(u[row * channels + 2 * pair]), b = check::value(u[row * channels + 2 * pair + 1]);
            want_turned[row * channels + 2 * pair] = a * std::cos(angle) - b * std::sin(angle);
            want_turned[row * channels + 2 * pair + 1] = b * std::cos(angle) + a * std::sin(angle);
            want_back[row * channels + 2 * pair] = a * std::cos(angle) + b * std::sin(angle);
            want_back[row * channels + 2 * pair + 1] = b * std::cos(angle) - a * std::sin(angle);
        }
    }
    check::close("rows", y, want_y, 0);
    check::close("gradient of the volume", dx, want_dx, 0);
    check::close("positions", placed, want_placed, check::tolerance_of<T>);
    check::close("gradient of the positions", dtable, want_table, check::SUMMED);
    check::close("rope", turned, want_turned, check::tolerance_of<T>);
    check::close("rope back", back, want_back, check::tolerance_of<T>);
}

int main() {
    run<bf16>("listed tokens", {{0, 0, 1, 2}, {0, 1, 0, 0}, {1, 0, 0, 1}}, 2, {1, 1, 1}, {2, 2, 3}, 2, 2, 2);
    run<float>("whole grids", {{0, 0, 0, 0}, {1, 0, 0, 0}}, 2, {2, 1, 3}, {2, 1, 3}, 3, 1, 1);
    run<bf16>("eight channels at a time", {{0, 0, 1, 2}, {0, 1, 0, 0}, {1, 0, 0, 1}}, 2, {1, 2, 1}, {2, 4, 3}, 2, 1, 4);
    return check::report("tokens");
}

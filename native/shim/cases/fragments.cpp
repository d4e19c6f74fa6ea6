// The kernels of ops/fragments under the emulation: each layout put back in order, and products in f64.
#include KERNEL
#include "check.h"

static std::vector<bf16> numbers(int n) {
    std::vector<bf16> v(n);
    for (int i = 0; i < n; i++) v[i] = to_bf16((float)(i * 37 % 64 - 31));
    return v;
}

static std::vector<double> product(const std::vector<bf16>& a, const std::vector<bf16>& b, int rows, int depth, int columns) {
    std::vector<double> d(rows * columns);
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < depth; k++)
            for (int c = 0; c < columns; c++) d[r * columns + c] += check::value(a[r * depth + k]) * check::value(b[k * columns + c]);
    return d;
}

int main() {
    const auto values = numbers(256), a = numbers(64 * 16), b = numbers(16 * 96);
    for (int turned = 0; turned < 2; turned++) {
        check::what = turned ? "ldmatrix, transposed" : "ldmatrix";
        std::vector<float> out(256), plain(256);
        check::same_under_all_schedules([&] { RUN(fragments_load, dim3{1}, 32, 512, values.data(), turned, out.data()); }, out);
        std::vector<double> want(256);
        for (int i = 0; i < 256; i++) {  // matrix m, row, column: register m of lane 4 row + column / 2; turned: the roles change
            const int m = i / 64, row = i / 8 % 8, column = i % 8, lane = turned ? 4 * column + row / 2 : 4 * row + column / 2;
            plain[i] = out[(lane * 4 + m) * 2 + (turned ? row : column) % 2];
            want[i] = check::value(values[i]);
        }
        check::close("values", plain, want, 0);
    }
    check::what = "cp.async";
    std::vector<float> copied(256);
    check::same_under_all_schedules([&] { RUN(fragments_copy, dim3{1}, 32, 512, values.data(), copied.data()); }, copied);
    std::vector<double> kept(256);
    for (int i = 0; i < 256; i++) kept[i] = i / 8 % 2 ? 0 : check::value(values[i]);
    check::close("values", copied, kept, 0);

    check::what = "mma.sync";
    std::vector<float> held(128), square(128);
    const std::vector<bf16> small_a(a.begin(), a.begin() + 256), small_b(b.begin(), b.begin() + 128);
    check::same_under_all_schedules([&] { RUN(fragments_product, dim3{1}, 32, 0, small_a.data(), small_b.data(), held.data()); }, held);
    for (int i = 0; i < 128; i++) {
        const int row = i / 8, column = i % 8;
        square[i] = held[(row % 8 * 4 + column / 2) * 4 + row / 8 * 2 + column % 2];
    }
    check::close("product", square, product(small_a, small_b, 16, 16, 8), 0);

    for (int turned = 0; turned < 2; turned++) {
        check::what = turned ? "wgmma, turned factors" : "wgmma";
        std::vector<float> spread(128 * 48), wide(64 * 96);
        check::same_under_all_schedules(
            [&] {
                if (turned) RUN(fragments_wgmma_turned, dim3{1}, 128, 5440, a.data(), b.data(), spread.data());
                else RUN(fragments_wgmma, dim3{1}, 128, 5120, a.data(), b.data(), spread.data());
            },
            spread);
        for (int i = 0; i < 64 * 96; i++) {
            const int row = i / 96, column = i % 96, thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
            wide[i] = spread[thread * 48 + column / 8 * 4 + row % 16 / 8 * 2 + column % 2];
        }
        check::close("product", wide, product(a, b, 64, 16, 96), 0);
    }
    return check::report("fragments");
}

// What the tests of all kernels share: grids, noise, comparison, and the loop over the schedules. Judges compute in f64
// from the contract of the op (mod.rs beside the kernel) and share no code with it.
#pragma once
#include "device.cuh"

namespace check {

/// Visible blocks of `samples` volumes of `dims` blocks, and 27 neighbours of each (-1: hidden or outside).
struct Grid {
    std::vector<int> neighbours;
    std::vector<int> starts{0};  // first block of each sample, and the number of blocks
    int blocks = 0;

    template <class Visible> Grid(int samples, const int (&dims)[3], Visible visible) {
        const int cells = dims[0] * dims[1] * dims[2];
        std::vector<int> number(samples * cells, -1);
        for (int n = 0; n < samples; n++) {
            for (int cell = 0; cell < cells; cell++) {
                if (visible(n * cells + cell)) number[n * cells + cell] = blocks++;
            }
            starts.push_back(blocks);
        }
        for (int i = 0; i < samples * cells; i++) {
            if (number[i] < 0) continue;
            const int n = i / cells, z = i % cells / (dims[1] * dims[2]), y = i / dims[2] % dims[1], x = i % dims[2];
            for (int dz = -1; dz <= 1; dz++)
                for (int dy = -1; dy <= 1; dy++)
                    for (int dx = -1; dx <= 1; dx++) {
                        const int p[3] = {z + dz, y + dy, x + dx};
                        bool inside = true;
                        for (int d = 0; d < 3; d++) inside = inside && p[d] >= 0 && p[d] < dims[d];
                        const int at = (n * dims[0] + p[0]) * dims[1] * dims[2] + p[1] * dims[2] + p[2];
                        neighbours.push_back(inside ? number[at] : -1);
                    }
        }
    }
};

/// The masks of the shape table.
struct Mask {
    const char* name;
    int samples, dims[3];
    bool (*visible)(int cell);
};
inline const Mask MASKS[] = {
    {"dense, batch 1", 1, {1, 1, 1}, [](int) { return true; }},
    {"all blocks, batch 1", 1, {2, 2, 2}, [](int) { return true; }},
    {"half hidden, batch 2", 2, {2, 2, 2}, [](int i) -> bool { return 0b1101011010101101 >> (i % 16) & 1; }},
    {"all hidden but one", 1, {2, 3, 2}, [](int i) { return i == 7; }},
};

/// What `RowSums` needs for rows of c channels: blocks along z, and bytes of shared memory for one sum per channel.
template <class E> unsigned row_width(int c) { return c % WIDE<E> ? 1 : WIDE<E>; }
template <class E> unsigned row_groups(int c) { return (c / row_width<E>(c) + 255) / 256; }
template <class E> unsigned row_bytes(int c) { return row_width<E>(c) * 1024; }
/// Grid of kernels with `fold_slices`, for n sums.
inline dim3 folding(int n) { return {(unsigned)(n * 32 + 255) / 256}; }

inline std::mt19937 dice(1);

/// Uniform in -1 .. 1.
inline std::vector<float> noise(size_t n) {
    std::uniform_real_distribution<float> any(-1, 1);
    std::vector<float> v(n);
    for (float& x : v) x = any(dice);
    return v;
}
inline std::vector<bf16> noise16(size_t n) {
    std::vector<bf16> v;
    for (float x : noise(n)) v.push_back(to_bf16(x));
    return v;
}
/// Either type, for kernels that have both.
template <class T> std::vector<T> noise_of(size_t n) {
    if constexpr (std::is_same_v<T, float>) return noise(n);
    else return noise16(n);
}
template <class T> std::vector<T> unfilled_of(size_t n) {
    std::vector<T> v(n);
    std::memset(v.data(), 0xff, n * sizeof(T));
    return v;
}

/// Memory that a kernel has to fill: NaN everywhere.
inline std::vector<bf16> unfilled16(size_t n) { return std::vector<bf16>(n, 0xffff); }
inline std::vector<float> unfilled(size_t n) { return std::vector<float>(n, NAN); }

/// Name of a stored type, for messages.
template <class E> std::string name_of() { return std::is_same_v<E, bf16> ? "bf16, " : "f32, "; }

inline std::string what;  // the case that runs, for messages
inline double worst = 0;  // largest error of all cases, in units of its tolerance
inline int cases = 0;

[[noreturn]] inline void fail(const std::string& why) {
    std::printf("%s: schedule \"%s\": %s\n", what.c_str(), shim::schedule.name, why.c_str());
    std::fflush(stdout);
    std::_Exit(1);
}

inline double value(bf16 v) { return from_bf16(v); }
inline double value(float v) { return v; }

/// Every value within `tolerance` of the largest.
template <class T> void close(const char* name, const std::vector<T>& got, const std::vector<double>& want, double tolerance) {
    double scale = 1e-6;
    for (double w : want) scale = std::max(scale, std::abs(w));
    if (got.size() != want.size()) fail(std::string(name) + " has the wrong length");
    for (size_t i = 0; i < got.size(); i++) {
        const double error = std::abs(value(got[i]) - want[i]) / scale;
        if (!(error <= tolerance)) {
            fail(std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(value(got[i])) + ", not " +
                 std::to_string(want[i]));
        }
        worst = std::max(worst, error / tolerance);
    }
}

/// Stored bf16 is off by half a unit of its 8 bits, at most 2^-8; sums in f32 by a few roundings. Operands are exact.
constexpr double STORED = 1.0 / 256, SUMMED = 2e-5;

/// What sums and the storage of a result cost.
template <class T> constexpr double tolerance_of = std::is_same_v<T, float> ? SUMMED : STORED;

/// RUN of the kernel for f32 or bf16, by the type.
#define RUN_OF(T, kernel, ...)                                  \
    do {                                                        \
        if constexpr (std::is_same_v<T, float>) RUN(kernel##_f32, __VA_ARGS__); \
        else RUN(kernel, __VA_ARGS__);                          \
    } while (0)

/// Runs `launches` under every schedule; all must give the same bits in `outputs`, which are cleared before.
/// ONE_SCHEDULE takes one per case, in turn: for kernels that are slow under sanitizers, which look at addresses, and no
/// schedule changes those.
template <class Launches, class... Out> void same_under_all_schedules(Launches launches, std::vector<Out>&... outputs) {
    [[maybe_unused]] const int number = cases++;
    auto first = std::make_tuple(outputs...);
    const auto cleared = first;
    bool begun = false;
    for (int i = 0; i < 5; i++) {
#if defined(ONE_SCHEDULE)
        if (i != number % 5) continue;
#endif
        shim::schedule = shim::SCHEDULES[i];
        std::tie(outputs...) = cleared;
        launches();
        const auto equal = [](const auto& a, const auto& b) {
            return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
        };
        const auto all_equal = [&](const auto&... kept) { return (equal(kept, outputs) && ...); };
        if (begun && !std::apply(all_equal, first)) fail("other bits than under the first schedule");
        first = std::make_tuple(outputs...);
        begun = true;
    }
}

/// The last line of a test: what ran.
inline int report(const char* op) {
    std::printf("{\"op\":\"%s\",\"cases\":%d,\"worst\":%.3f,\"kernels\":[", op, cases, worst);
    const char* comma = "";
    for (const auto& name : shim::kernels_run) {
        std::printf("%s\"%s\"", comma, name.c_str());
        comma = ",";
    }
    std::printf("]}\n");
    return 0;
}

}  // namespace check

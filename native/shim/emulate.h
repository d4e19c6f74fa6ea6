// The host side of device.cuh: runs kernel source without a GPU. One fiber per CUDA thread; blocks run one after
// another, so that nothing is shown about memory order between blocks. Shared memory is filled with NaN before each
// block. Layouts of warp matrices are those of the PTX manual; hardware has to confirm them once.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__has_feature)  // clang says so in another way than gcc
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace shim {

/// How threads take turns, and when asynchronous copies arrive.
enum class Turns { in_order, shuffled, greedy_warps };
enum class Copies { late, early, at_random };
struct Schedule {
    const char* name;
    Turns turns;
    Copies copies;
};
inline constexpr Schedule SCHEDULES[5] = {
    {"in order", Turns::in_order, Copies::late},
    {"shuffled threads", Turns::shuffled, Copies::late},
    {"greedy warps, late copies", Turns::greedy_warps, Copies::late},
    {"greedy warps, early copies", Turns::greedy_warps, Copies::early},
    {"greedy warps, random copies", Turns::greedy_warps, Copies::at_random},
};
inline Schedule schedule = SCHEDULES[0];

/// The first frame of a fiber never returns: what the address sanitizer marked around its locals goes with it.
#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
inline void forget(char* stack, size_t size) { __asan_unpoison_memory_region(stack + size - 8192, 8192); }
#else
inline void forget(char*, size_t) {}
#endif

// A stack and where on it a fiber stands. Switching saves the registers that a call preserves.
#if defined(__x86_64__)
struct Context {
    void* stack_pointer;
};
extern "C" void shim_switch(Context* from, Context* to);
asm(R"(
.text
.globl shim_switch
.type shim_switch, @function
shim_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");
inline void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
    forget(stack, size);
    auto top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t(15));
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context.stack_pointer = top;
}
#else
struct Context {
    ucontext_t state;
};
inline void shim_switch(Context* from, Context* to) { swapcontext(&from->state, &to->state); }
inline void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
    forget(stack, size);
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = size;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
}
#endif

struct Copy {
    void* to;
    const void* from;  // nullptr: zeros
    void arrive() const { from ? std::memcpy(to, from, 16) : std::memset(to, 0, 16); }
};

/// A product of Hopper's wgmma that has begun: where its sums are, and the descriptions of its factors.
struct Product {
    float* sums;
    unsigned long long a, b;
    int columns;
    bool turned;
    void finish(int thread) const;
};

struct Fiber {
    Context context;
    dim3 thread;
    int index;
    bool done = false;
    const unsigned* waits = nullptr;  // a generation that must move on from `seen` before this fiber can
    unsigned seen = 0;
    std::vector<Copy> copies;
    std::vector<size_t> groups;  // how many of them stood there at each copies_commit
    bool unseen = false;  // it wrote to shared memory what wgmma may not see yet
    bool open = false;    // between wgmma_begin and wgmma_end
    std::vector<Product> products;
};

/// What the lanes of a warp hand in, and the results, which the last lane to arrive writes. Two sets, in turn: no lane
/// can be two instructions ahead of another.
struct Warp {
    unsigned arrived = 0, mask = 0, generation = 0;
    struct {
        unsigned in[32][10];
        const void* row[32];
        unsigned out[32][4];
    } set[2];
};

inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline Fiber* current = nullptr;
inline Context scheduler;
inline unsigned generation, waiting, alive;
inline dim3 block_index, block_size, grid_size;
inline unsigned char* shared;
inline std::function<void()> body;
inline std::mt19937 chance(7);
inline std::string kernel_name;
inline std::set<std::string> kernels_run;

[[noreturn]] inline void die(const char* why) {
    std::printf("%s, block %u,%u,%u, thread %d, schedule \"%s\": %s\n", kernel_name.c_str(), block_index.x,
                block_index.y, block_index.z, current ? current->index : -1, schedule.name, why);
    std::fflush(stdout);
    std::_Exit(1);
}

inline void wait_for(const unsigned& counter) {
    Fiber* me = current;
    me->seen = counter;
    me->waits = &counter;
    shim_switch(&me->context, &scheduler);
    me->waits = nullptr;
}

inline void barrier() {
    if (++waiting == alive) {
        waiting = 0;
        ++generation;
    } else {
        wait_for(generation);
    }
}

/// All lanes of the mask meet; the last one to come runs `finish` on what they handed in.
template <class Give, class Finish> auto& meet(unsigned mask, Give give, Finish finish) {
    Warp& warp = warps[current->index / 32];
    const int lane = current->index % 32;
    if (!(mask >> lane & 1)) die("a lane is not in its own mask");
    if (warp.arrived && warp.mask != mask) die("lanes of a warp meet with different masks");
    auto& set = warp.set[warp.generation & 1];
    warp.mask = mask;
    warp.arrived |= 1u << lane;
    give(set, lane);
    if (warp.arrived == mask) {
        finish(set);
        warp.arrived = 0;
        ++warp.generation;
    } else {
        wait_for(warp.generation);
    }
    return set;
}

inline void entry() {
    body();
    if (!current->copies.empty()) die("the kernel ended with an asynchronous copy that nobody waited for");
    if (current->open) die("the kernel ended with a product that nobody waited for");
    current->done = true;
    --alive;
    if (alive && waiting == alive) die("some threads ended while the others wait at __syncthreads");
    shim_switch(&current->context, &scheduler);
}

inline void run_block() {
    std::vector<int> order(fibers.size()), warp_order(warps.size());
    for (size_t i = 0; i < order.size(); i++) order[i] = (int)i;
    for (size_t i = 0; i < warp_order.size(); i++) warp_order[i] = (int)i;
    auto step = [](int i) {
        Fiber& f = fibers[i];
        if (f.done || (f.waits && *f.waits == f.seen)) return false;
        current = &f;
        shim_switch(&scheduler, &f.context);
        return true;
    };
    while (alive) {
        bool moved = false;
        if (schedule.turns == Turns::greedy_warps) {
            std::shuffle(warp_order.begin(), warp_order.end(), chance);
            for (int w : warp_order) {
                for (bool more = true; more; moved |= more) {
                    more = false;
                    for (int lane = 0; lane < 32; lane++) more |= step(w * 32 + lane);
                }
            }
        } else {
            if (schedule.turns == Turns::shuffled) std::shuffle(order.begin(), order.end(), chance);
            for (int i : order) moved |= step(i);
        }
        if (!moved) {
            current = nullptr;
            die("deadlock: no barrier can complete");
        }
    }
}

/// Runs a kernel over a grid under `schedule`. `shared_bytes` must fit its budget.
template <class Call>
void launch(const char* name, int budget, dim3 grid, unsigned threads, size_t shared_bytes, Call call) {
    constexpr size_t STACK = 128 << 10;
    kernel_name = name;
    kernels_run.insert(name);
    current = nullptr;
    if (threads % 32) die("blocks of whole warps are needed");
    if (shared_bytes > (size_t)budget) die("the launch asks for more shared memory than the budget of the kernel");
    static std::vector<char> stacks;
    if (stacks.size() < threads * STACK) stacks = std::vector<char>(threads * STACK);
    auto free_shared = [](unsigned char* p) { ::operator delete[](p, std::align_val_t(128)); };
    std::unique_ptr<unsigned char[], decltype(free_shared)> memory(new (std::align_val_t(128)) unsigned char[shared_bytes]);
    shared = memory.get();
    grid_size = grid;
    block_size = {threads, 1, 1};
    body = call;
    fibers.assign(threads, {});
    for (unsigned b = 0; b < grid.x * grid.y * grid.z; b++) {
        block_index = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        if (shared_bytes) std::memset(shared, 0xff, shared_bytes);  // NaN as bf16 and as f32
        warps.assign(threads / 32, {});
        generation = waiting = 0;
        alive = threads;
        for (unsigned i = 0; i < threads; i++) {
            fibers[i].thread = {i, 0, 0};
            fibers[i].index = (int)i;
            fibers[i].done = false;
            prepare(fibers[i].context, stacks.data() + i * STACK, STACK, entry);
        }
        run_block();
    }
    current = nullptr;
}

}  // namespace shim

/// Runs `kernel` with its arguments; grid is a dim3, threads and bytes of shared memory numbers.
#define RUN(kernel, grid, threads, bytes, ...) \
    shim::launch(#kernel, kernel##_budget.shared, grid, threads, bytes, [&] { kernel(__VA_ARGS__); })

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (shim::current->thread)
#define blockIdx (shim::block_index)
#define blockDim (shim::block_size)
#define gridDim (shim::grid_size)
#define SHARED(type, name) type* const name = reinterpret_cast<type*>(shim::shared)

inline void __syncthreads() { shim::barrier(); }

inline int __shfl_sync(unsigned mask, int v, int from) {
    auto& set = shim::meet(mask, [&](auto& s, int lane) { s.in[lane][0] = (unsigned)v; }, [](auto&) {});
    return (int)set.in[from][0];
}

inline float __shfl_xor_sync(unsigned mask, float v, int distance) {
    auto& set = shim::meet(
        mask, [&](auto& s, int lane) { s.in[lane][0] = std::bit_cast<unsigned>(v); }, [](auto&) {});
    return std::bit_cast<float>(set.in[shim::current->index % 32 ^ distance][0]);
}

inline float float_of_bits(unsigned v) { return std::bit_cast<float>(v); }

inline unsigned bits_of_float(float v) { return std::bit_cast<unsigned>(v); }

inline void load16(unsigned (&words)[4], const void* from) {
    if ((uintptr_t)from & 15) shim::die("16 bytes are read that lie on no boundary of 16");
    std::memcpy(words, from, 16);
}
inline void store16(void* to, const unsigned (&words)[4]) {
    if ((uintptr_t)to & 15) shim::die("16 bytes are written that lie on no boundary of 16");
    std::memcpy(to, words, 16);
}

inline double exact_product(double a, double b) { return a * b; }

inline bf16 to_bf16(float v) {
    if (v != v) return 0x7fff;
    const unsigned bits = std::bit_cast<unsigned>(v);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float half_of(unsigned word, int which) { return float_of_bits(which ? word & 0xffff0000 : word << 16); }

/// Fragments of m16n8k16: with g = lane / 4 and t = lane % 4, a[i] holds rows g + 8 (i & 1), columns 2t + 8 (i >> 1)
/// and the next; b[i] rows 2t + 8i and the next of column g; d[i] row g + 8 (i >> 1), column 2t + (i & 1).
inline void mma(float d[4], const unsigned a[4], unsigned b0, unsigned b1) {
    auto give = [&](auto& s, int lane) {
        std::memcpy(s.in[lane], a, 16);
        s.in[lane][4] = b0;
        s.in[lane][5] = b1;
        std::memcpy(s.in[lane] + 6, d, 16);
    };
    auto& set = shim::meet(~0u, give, [](auto& s) {
        float left[16][16], right[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane >> 2, t = lane & 3;
            for (int h = 0; h < 2; h++) {
                for (int i = 0; i < 4; i++) left[g + 8 * (i & 1)][2 * t + h + 8 * (i >> 1)] = half_of(s.in[lane][i], h);
                for (int i = 0; i < 2; i++) right[2 * t + h + 8 * i][g] = half_of(s.in[lane][4 + i], h);
            }
        }
        float sums[16][8];
        const auto at = [&](int lane, int i) -> float& { return sums[(lane >> 2) + 8 * (i >> 1)][2 * (lane & 3) + (i & 1)]; };
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 4; i++) at(lane, i) = float_of_bits(s.in[lane][6 + i]);
        }
        for (int row = 0; row < 16; row++) {
            for (int k = 0; k < 16; k++) {
                for (int column = 0; column < 8; column++) sums[row][column] += left[row][k] * right[k][column];
            }
        }
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 4; i++) s.out[lane][i] = std::bit_cast<unsigned>(at(lane, i));
        }
    });
    std::memcpy(d, set.out[shim::current->index % 32], 16);
}

inline const auto& matrix_rows(const bf16* row) {
    if ((uintptr_t)row & 15) shim::die("a matrix row is not on a 16-byte boundary");
    return shim::meet(~0u, [&](auto& s, int lane) { s.row[lane] = row; }, [](auto&) {}).row;
}

inline void load_matrices(unsigned r[4], const bf16* row) {
    const auto& rows = matrix_rows(row);
    const int lane = shim::current->index % 32;
    for (int j = 0; j < 4; j++) std::memcpy(&r[j], (const bf16*)rows[8 * j + (lane >> 2)] + 2 * (lane & 3), 4);
}

inline void load_transposed(unsigned r[4], const bf16* row) {
    const auto& rows = matrix_rows(row);
    const int lane = shim::current->index % 32;
    for (int j = 0; j < 4; j++) {
        const int first = 8 * j + 2 * (lane & 3);
        r[j] = ((const bf16*)rows[first])[lane >> 2] | (unsigned)((const bf16*)rows[first + 1])[lane >> 2] << 16;
    }
}

inline void copy16(bf16* to, const bf16* from, bool ok) {
    if (((uintptr_t)to | (ok ? (uintptr_t)from : 0)) & 15) shim::die("an asynchronous copy is not on a 16-byte boundary");
    const shim::Copy copy{to, ok ? from : nullptr};
    const auto when = shim::schedule.copies;
    const bool early = when == shim::Copies::early || (when == shim::Copies::at_random && shim::chance() & 1);
    if (early) copy.arrive();
    else shim::current->copies.push_back(copy);
}

/// The first `count` copies of this thread arrive.
inline void copies_arrive(size_t count) {
    auto& copies = shim::current->copies;
    for (size_t i = 0; i < count; i++) copies[i].arrive();
    copies.erase(copies.begin(), copies.begin() + count);
    shim::current->unseen = true;
}

inline void copies_wait() {
    copies_arrive(shim::current->copies.size());
    shim::current->groups.clear();
}

/// The groups that are under way hold the copies up to these counts.
inline void copies_commit() { shim::current->groups.push_back(shim::current->copies.size()); }

inline void copies_wait_but_one() {
    auto& groups = shim::current->groups;
    if (groups.size() < 2) return;
    const size_t arrived = groups[groups.size() - 2];
    copies_arrive(arrived);
    groups.assign(1, groups.back() - arrived);
}

inline unsigned shared_place(const bf16* at) { return (unsigned)((const unsigned char*)at - shim::shared); }
inline void show_to_wgmma() { shim::current->unseen = false; }

inline void wgmma_begin() {
    for (const auto& fiber : shim::fibers) {
        if (!fiber.done && fiber.unseen) shim::die("wgmma reads what a thread has copied and not shown to it");
    }
    shim::current->open = true;
}

/// Each thread adds up what its own part of the result is: of the four warps warp w has rows 16 w on, d[4 n + 2 h + j] is
/// row lane / 4 + 8 h, column 8 n + 2 (lane % 4) + j.
inline void shim::Product::finish(int thread) const {
    auto at = [&](unsigned long long matrix, int row, int k) {
        const unsigned first = (matrix & 0x3fff) << 4, along = (matrix >> 16 & 0x3fff) << 4, down = (matrix >> 32 & 0x3fff) << 4;
        const unsigned within = turned ? k % 8 * 16 + row % 8 * 2 : row % 8 * 16 + k % 8 * 2;
        bf16 v;
        std::memcpy(&v, shared + first + row / 8 * down + k / 8 * along + within, 2);
        return float_of_bits((unsigned)v << 16);
    };
    for (int i = 0; i < columns / 2; i++) {
        const int row = thread % 128 / 32 * 16 + thread % 32 / 4 + 8 * (i >> 1 & 1);
        const int column = i / 4 * 8 + thread % 4 * 2 + (i & 1);
        for (int k = 0; k < 16; k++) sums[i] += at(a, row, k) * at(b, column, k);
    }
}

inline void wgmma_asked(const shim::Product& product) {
    if (!shim::current->open) shim::die("wgmma outside of wgmma_begin and wgmma_end");
    const auto when = shim::schedule.copies;
    const bool early = when == shim::Copies::early || (when == shim::Copies::at_random && shim::chance() & 1);
    if (early && shim::current->products.empty()) product.finish(shim::current->index);
    else shim::current->products.push_back(product);
}
inline void wgmma96(float (&d)[48], unsigned long long a, unsigned long long b) { wgmma_asked({d, a, b, 96, false}); }
inline void wgmma128(float (&d)[64], unsigned long long a, unsigned long long b) { wgmma_asked({d, a, b, 128, false}); }
template <int N> void wgmma_turned(float (&d)[N], unsigned long long a, unsigned long long b) { wgmma_asked({d, a, b, 2 * N, true}); }

inline void wgmma_end() {
    for (const auto& product : shim::current->products) product.finish(shim::current->index);
    shim::current->products.clear();
    shim::current->open = false;
}

/// Fibers leave their stacks at other places than they entered them.
extern "C" inline __attribute__((used)) const char* __asan_default_options() { return "detect_stack_use_after_return=0"; }

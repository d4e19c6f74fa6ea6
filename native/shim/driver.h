// The emulated card as src/gpu/host.rs calls it: kernels by name, arguments as the CUDA driver takes them.
#pragma once
#include "device.cuh"

namespace shim {

/// A kernel as the driver starts it. `sizes`: bytes of each argument.
struct Entry {
    int budget;
    std::vector<size_t> sizes;
    void (*call)(void* const* args);
};
inline std::unordered_map<std::string, Entry> entries;

template <auto kernel, class... A, size_t... I> Entry entry_of(int budget, void (*)(A...), std::index_sequence<I...>) {
    return {budget, {sizeof(A)...}, [](void* const* args) { kernel(*static_cast<std::remove_const_t<A>*>(args[I])...); }};
}
template <auto kernel, class... A> Entry entry(int budget, void (*of)(A...)) {
    return entry_of<kernel>(budget, of, std::index_sequence_for<A...>{});
}

}  // namespace shim

/// Makes a kernel of the namespace known by its name.
#define KNOWN(space, kernel) \
    const bool kernel##_known = \
        shim::entries.emplace(#kernel, shim::entry<space::kernel>(space::kernel##_budget.shared, space::kernel)).second;

/// Runs a kernel to its end; nullptr, or what is wrong with the launch.
extern "C" const char* vx_shim_launch(const char* name, const unsigned* grid, unsigned threads, unsigned shared,
                                      void* const* args, const size_t* sizes, size_t count) {
    const auto found = shim::entries.find(name);
    if (found == shim::entries.end()) return "there is no such kernel";
    const shim::Entry& entry = found->second;
    if (entry.sizes != std::vector<size_t>(sizes, sizes + count)) return "its arguments have other sizes";
    shim::launch(name, entry.budget, {grid[0], grid[1], grid[2]}, threads, shared, [&] { entry.call(args); });
    return nullptr;
}

// The part of the CUDA thread model that native/cuda uses, on a CPU: for tests. Every CUDA thread is a fiber with a stack
// of its own; the fibers of the blocks that run at the same time take turns, and a turn ends where a thread waits for
// others. Barriers order memory for the thread sanitizer; warp collectives, as on a GPU, do not.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define ORDERED_BEFORE(address) __tsan_release(address)
#define ORDERED_AFTER(address) __tsan_acquire(address)
#else
#define ORDERED_BEFORE(address) (void)(address)
#define ORDERED_AFTER(address) (void)(address)
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define NOT_SANITIZED __attribute__((no_sanitize("thread"), noinline))

using std::max;
using std::min;

struct Index3 {
    unsigned x;
};

namespace cuda_on_cpu {

struct Barrier {
    int expected = 0, arrived = 0, generation = 0;
};

struct Warp {
    Barrier barrier;
    std::uint64_t slot[2][32];
};

struct alignas(16) Line {  // as shared memory is aligned
    float floats[4];
};

struct Block {
    Barrier barrier;
    std::array<Barrier, 16> of_some;
    std::vector<Warp> warps;
    std::vector<Line> shared;
    unsigned index = 0;
};

struct Fiber {
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context{};
#endif
    std::unique_ptr<char[]> stack;
    void* sanitizer = nullptr;
    Block* block = nullptr;
    Warp* warp = nullptr;
    unsigned thread = 0;
    int collectives = 0;
    bool done = false;
};

// The fibers of the blocks that run at the same time.
struct Machine {
    std::vector<Block> running;
    Fiber* fibers = nullptr;
    std::size_t count = 0;
    Fiber host;
    std::size_t current = 0;
    std::uint64_t progress = 0;  // barriers passed, threads ended
    Barrier cluster;
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;
    unsigned threads = 0, blocks = 0;
};

inline Machine machine;

#if defined(__x86_64__)
// Saves what a function call preserves, and goes on with the other stack.
extern "C" void deltarnn_switch_stack(void** from, void* to);
asm(R"(
.text
.weak deltarnn_switch_stack
.type deltarnn_switch_stack, @function
deltarnn_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

NOT_SANITIZED inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.sanitizer, 1);  // without ordering memory
#endif
#if defined(__x86_64__)
    deltarnn_switch_stack(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
}

NOT_SANITIZED inline Fiber& self() { return machine.fibers[machine.current]; }

// The others' turn. All of them waiting without any having moved is a barrier that some thread never reaches.
NOT_SANITIZED inline void yield() {
    static std::uint64_t seen = 0, turns = 0;
    if (machine.progress != seen) {
        seen = machine.progress;
        turns = 0;
    } else if (++turns > 4 * machine.count + 1000) {
        std::fputs("deadlock: a barrier that not all threads reach\n", stderr);
        std::abort();
    }
    Fiber& from = self();
    std::size_t next = machine.current;
    do next = next + 1 == machine.count ? 0 : next + 1;
    while (machine.fibers[next].done && next != machine.current);
    if (next == machine.current) {
        if (!from.done) return;
        switch_fiber(from, machine.host);
        return;
    }
    machine.current = next;
    switch_fiber(from, machine.fibers[next]);
}

NOT_SANITIZED inline void wait(Barrier& barrier) {
    const int generation = barrier.generation;
    if (++barrier.arrived == barrier.expected) {
        barrier.arrived = 0;
        ++barrier.generation;
        ++machine.progress;
    }
    while (barrier.generation == generation) yield();
}

NOT_SANITIZED inline void wait(Barrier& barrier, int expected) {
    barrier.expected = expected;
    wait(barrier);
}

NOT_SANITIZED inline void moved() { ++machine.progress; }

// What every lane of the warp gives, [lane].
NOT_SANITIZED inline const std::uint64_t* exchange(std::uint64_t value) {
    Fiber& fiber = self();
    std::uint64_t* slots = fiber.warp->slot[fiber.collectives++ % 2];
    slots[fiber.thread % 32] = value;
    wait(fiber.warp->barrier);
    return slots;
}

NOT_SANITIZED inline void run_fiber() {
    machine.body(machine.arguments);
    ORDERED_BEFORE(&machine);
    self().done = true;
    ++machine.progress;
    yield();
    std::abort();
}

inline void start(Fiber& fiber) {
    constexpr std::size_t size = 1 << 16;
    fiber.stack = std::make_unique_for_overwrite<char[]>(size);
#if defined(__SANITIZE_THREAD__)
    fiber.sanitizer = __tsan_create_fiber(0);
#endif
#if defined(__x86_64__)
    auto top = reinterpret_cast<std::uintptr_t>(fiber.stack.get() + size) & ~std::uintptr_t{15};
    auto* frame = reinterpret_cast<void**>(top) - 8;
    std::memset(frame, 0, 8 * sizeof(void*));
    frame[6] = reinterpret_cast<void*>(&run_fiber);  // returned to, after six registers
    fiber.stack_pointer = frame;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = size;
    makecontext(&fiber.context, run_fiber, 0);
#endif
}

struct Launch {
    unsigned grid, block, shared_bytes;
    unsigned together;  // blocks that run at the same time: a cluster, or of a cooperative launch all
};

inline void launch_blocks(const Launch& launch, unsigned first, void (*body)(void*), void* arguments) {
    const unsigned count = std::min(launch.together, launch.grid - first);
    machine.running = std::vector<Block>(count);
    std::vector<Block>& blocks = machine.running;
    std::vector<Fiber> fibers(static_cast<std::size_t>(count) * launch.block);
    machine.fibers = fibers.data();
    machine.count = fibers.size();
    machine.body = body;
    machine.arguments = arguments;
    machine.threads = launch.block;
    machine.blocks = launch.grid;
    machine.cluster = {static_cast<int>(count * launch.block), 0, 0};
    for (unsigned b = 0; b < count; ++b) {
        blocks[b].index = first + b;
        blocks[b].barrier.expected = static_cast<int>(launch.block);
        blocks[b].warps.resize(launch.block / 32);
        blocks[b].shared.assign((launch.shared_bytes + 15) / 16, Line{{NAN, NAN, NAN, NAN}});
        for (unsigned t = 0; t < launch.block; ++t) {
            Fiber& fiber = fibers[b * launch.block + t];
            fiber.block = &blocks[b];
            fiber.warp = &blocks[b].warps[t / 32];
            fiber.warp->barrier.expected = 32;
            fiber.thread = t;
            start(fiber);
        }
    }
#if defined(__SANITIZE_THREAD__)
    machine.host.sanitizer = __tsan_get_current_fiber();
#endif
    machine.current = 0;
    switch_fiber(machine.host, fibers[0]);
    ORDERED_AFTER(&machine);
#if defined(__SANITIZE_THREAD__)
    for (Fiber& fiber : fibers) __tsan_destroy_fiber(fiber.sanitizer);
#endif
}

template <class... Arguments>
void launch(void (*kernel)(Arguments...), const Launch& launch, const std::uint64_t* words) {
    struct Call {
        void (*kernel)(Arguments...);
        const std::uint64_t* words;
    } call{kernel, words};
    const auto body = [](void* given) {
        const Call& call = *static_cast<Call*>(given);
        [&]<std::size_t... index>(std::index_sequence<index...>) {
            call.kernel(std::bit_cast<Arguments>(call.words[index])...);
        }(std::index_sequence_for<Arguments...>{});
    };
    for (unsigned first = 0; first < launch.grid; first += launch.together) {
        launch_blocks(launch, first, body, &call);
    }
}

}  // namespace cuda_on_cpu

#define threadIdx (Index3{cuda_on_cpu::self().thread})
#define blockIdx (Index3{cuda_on_cpu::self().block->index})
#define blockDim (Index3{cuda_on_cpu::machine.threads})

inline void __syncthreads() {
    cuda_on_cpu::Barrier& barrier = cuda_on_cpu::self().block->barrier;
    ORDERED_BEFORE(&barrier);
    cuda_on_cpu::wait(barrier);
    ORDERED_AFTER(&barrier);
}

inline void __syncwarp() {
    cuda_on_cpu::Barrier& barrier = cuda_on_cpu::self().warp->barrier;
    ORDERED_BEFORE(&barrier);
    cuda_on_cpu::wait(barrier);
    ORDERED_AFTER(&barrier);
}

NOT_SANITIZED inline std::uint32_t __ballot_sync(std::uint32_t, bool predicate) {
    const std::uint64_t* slots = cuda_on_cpu::exchange(predicate);
    std::uint32_t mask = 0;
    for (int lane = 0; lane < 32; ++lane) mask |= static_cast<std::uint32_t>(slots[lane]) << lane;
    return mask;
}

template <class T>
NOT_SANITIZED T __shfl_sync(std::uint32_t, T value, int lane) {
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(T));
    word = cuda_on_cpu::exchange(word)[lane];
    std::memcpy(&value, &word, sizeof(T));
    return value;
}

template <class T>
NOT_SANITIZED T __shfl_xor_sync(std::uint32_t mask, T value, int distance) {
    return __shfl_sync(mask, value, static_cast<int>(cuda_on_cpu::self().thread % 32) ^ distance);
}

inline float __fdividef(float above, float below) { return above / below; }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __popc(std::uint32_t value) { return __builtin_popcount(value); }
inline void atomicOr(std::uint32_t* to, std::uint32_t value) { __atomic_fetch_or(to, value, __ATOMIC_RELAXED); }

namespace deltarnn {

inline float* shared_memory() { return cuda_on_cpu::self().block->shared.data()->floats; }
inline float load_from_team(const float* from) { return *from; }
inline void store_for_team(float* to, float value) { *to = value; }

template <class T>
void store_to_block(T* to, int rank, T value) {
    char* here = reinterpret_cast<char*>(cuda_on_cpu::self().block->shared.data());
    char* there = reinterpret_cast<char*>(cuda_on_cpu::machine.running[rank].shared.data());
    *reinterpret_cast<T*>(there + (reinterpret_cast<char*>(to) - here)) = value;
}

inline void barrier_of_some(int id, int threads) {
    cuda_on_cpu::Barrier& barrier = cuda_on_cpu::self().block->of_some.at(static_cast<std::size_t>(id));
    ORDERED_BEFORE(&barrier);
    cuda_on_cpu::wait(barrier, threads);
    ORDERED_AFTER(&barrier);
}

inline float of_bits(std::int64_t bits) { return std::bit_cast<float>(static_cast<std::int32_t>(bits)); }
inline float power_of_two(float x) { return std::exp2(x); }
inline void prefetch(const float*) {}

inline void cluster_barrier() {
    ORDERED_BEFORE(&cuda_on_cpu::machine.cluster);
    cuda_on_cpu::wait(cuda_on_cpu::machine.cluster);
    ORDERED_AFTER(&cuda_on_cpu::machine.cluster);
}

// A fence on either side, on a GPU.
inline std::uint32_t arrive(std::uint32_t* counter) {
    const std::uint32_t before = __atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL);
    cuda_on_cpu::moved();
    return before;
}

inline void arrive_and_wait(std::uint32_t* counter, std::uint32_t target) {
    arrive(counter);
    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < target) cuda_on_cpu::yield();
}

}  // namespace deltarnn

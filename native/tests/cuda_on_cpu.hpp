// The part of the CUDA thread model that native/cuda uses, on a CPU: for tests. Every CUDA thread is a fiber; those of
// the blocks that run at the same time take turns. Barriers order memory for the thread sanitizer; warp collectives, as
// on a GPU, do not.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "fibers.hpp"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

using std::max;
using std::min;

struct Index3 {
    unsigned x;
};

namespace cuda_on_cpu {

struct Warp {
    fibers::Barrier barrier;
    std::uint64_t slot[2][32];
};

struct alignas(16) Line {  // as shared memory is aligned
    float floats[4];
};

struct Block {
    unsigned index;
    fibers::Barrier barrier;
    std::array<fibers::Barrier, 16> of_some;
    std::vector<Warp> warps;
    std::vector<Line> shared;
};

struct Thread {
    Block* block;
    Warp* warp;
    unsigned index;
    int collectives = 0;
};

// The blocks that run at the same time, and their threads, each by its fiber's number.
struct Machine {
    std::vector<Block> running;
    Thread* threads = nullptr;
    unsigned threads_per_block = 0;
    fibers::Barrier cluster;
};

inline Machine machine;

NOT_SANITIZED inline Thread& self() { return machine.threads[fibers::current()]; }

// What every lane of the warp gives, [lane].
NOT_SANITIZED inline const std::uint64_t* exchange(std::uint64_t value) {
    Thread& thread = self();
    std::uint64_t* slots = thread.warp->slot[thread.collectives++ % 2];
    slots[thread.index % 32] = value;
    fibers::wait(thread.warp->barrier, 32);
    return slots;
}

struct Launch {
    unsigned grid, block, shared_bytes;
    unsigned together;  // blocks that run at the same time: a cluster, or of a cooperative launch all
};

// Runs thread() in every thread of the blocks from `first` that run at the same time.
inline void launch_blocks(const Launch& launch, unsigned first, const std::function<void()>& thread) {
    const unsigned count = std::min(launch.together, launch.grid - first);
    std::vector<Block> blocks(count);
    std::vector<Thread> threads;
    for (unsigned b = 0; b < count; ++b) {
        Block& block = blocks[b];
        block.index = first + b;
        block.warps.resize(launch.block / 32);
        block.shared.assign((launch.shared_bytes + 15) / 16, Line{{NAN, NAN, NAN, NAN}});
        for (unsigned t = 0; t < launch.block; ++t) threads.push_back({&block, &block.warps[t / 32], t});
    }
    machine.running = std::move(blocks);
    machine.threads = threads.data();
    machine.threads_per_block = launch.block;
    machine.cluster = {};
    fibers::run(threads.size(), thread);
}

template <class... Arguments>
void launch(void (*kernel)(Arguments...), const Launch& launch, const std::uint64_t* words) {
    const std::function<void()> thread = [&] {
        [&]<std::size_t... index>(std::index_sequence<index...>) {
            kernel(std::bit_cast<Arguments>(words[index])...);
        }(std::index_sequence_for<Arguments...>{});
    };
    for (unsigned first = 0; first < launch.grid; first += launch.together) launch_blocks(launch, first, thread);
}

}  // namespace cuda_on_cpu

#define threadIdx (Index3{cuda_on_cpu::self().index})
#define blockIdx (Index3{cuda_on_cpu::self().block->index})
#define blockDim (Index3{cuda_on_cpu::machine.threads_per_block})

inline void __syncthreads() { fibers::synchronize(cuda_on_cpu::self().block->barrier, blockDim.x); }
inline void __syncwarp() { fibers::synchronize(cuda_on_cpu::self().warp->barrier, 32); }

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
    return __shfl_sync(mask, value, static_cast<int>(cuda_on_cpu::self().index % 32) ^ distance);
}

inline float __fdividef(float above, float below) { return above / below; }
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
    fibers::synchronize(cuda_on_cpu::self().block->of_some.at(id), static_cast<std::size_t>(threads));
}

inline float of_bits(std::int64_t bits) { return std::bit_cast<float>(static_cast<std::int32_t>(bits)); }
inline float power_of_two(float x) { return std::exp2(x); }
inline void prefetch(const float*) {}

inline void cluster_barrier() { fibers::synchronize(cuda_on_cpu::machine.cluster, fibers::count()); }

// A fence on either side, on a GPU.
inline std::uint32_t arrive(std::uint32_t* counter) {
    const std::uint32_t before = __atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL);
    fibers::note_progress();
    return before;
}

inline void arrive_and_wait(std::uint32_t* counter, std::uint32_t target) {
    arrive(counter);
    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < target) fibers::yield();
}

}  // namespace deltarnn

// What the kernels need of a GPU beyond the language: shared memory of a size known at launch, memory that the blocks
// of a team share, and their barriers. native/tests/cuda_on_cpu.hpp gives the same on a CPU.
#pragma once
#ifdef DELTARNN_ON_CPU
#include "cuda_on_cpu.hpp"
#else

typedef unsigned int uint32_t;
typedef long long int64_t;

namespace deltarnn {

__device__ __forceinline__ float* shared_memory() {
    extern __shared__ float dynamic_shared[];
    return dynamic_shared;
}

// Global memory that other blocks of the team write: not by this multiprocessor's own cache.
__device__ __forceinline__ float load_from_team(const float* from) { return __ldcg(from); }
__device__ __forceinline__ void store_for_team(float* to, float value) { __stcg(to, value); }

// `to` as it lies in the shared memory of block `rank` of the cluster. T: of 4 bytes, or of two such.
template <class T>
__device__ __forceinline__ void store_to_block(T* to, int rank, T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
#if __CUDA_ARCH__ >= 900
    uint32_t there, words[sizeof(T) / 4];
    memcpy(words, &value, sizeof(T));
    const uint32_t here = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    if constexpr (sizeof(T) == 8) {
        asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(there), "r"(words[0]), "r"(words[1]) : "memory");
    } else {
        asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(there), "r"(words[0]) : "memory");
    }
#endif
}

__device__ __forceinline__ void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// Of some warps of a block, `threads` in all: they wait for each other. id: 1 to 15.
__device__ __forceinline__ void barrier_of_some(int id, int threads) {
    asm volatile("barrier.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ float of_bits(int64_t bits) { return __int_as_float(static_cast<int>(bits)); }

// 2^x; of what is too small, 0.
__device__ __forceinline__ float power_of_two(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// Into the level 2 cache, for a later load.
__device__ __forceinline__ void prefetch(const float* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

// Counts this block in: how many were before. What they wrote is seen from here on.
__device__ __forceinline__ uint32_t arrive(uint32_t* counter) {
    __threadfence();
    const uint32_t before = atomicAdd(counter, 1u);
    __threadfence();
    return before;
}

// And waits for `target` to have been.
__device__ __forceinline__ void arrive_and_wait(uint32_t* counter, uint32_t target) {
    uint32_t seen = arrive(counter) + 1;
    while (seen < target) asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
}

}  // namespace deltarnn
#endif

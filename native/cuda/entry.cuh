// What the entry points have in common. A source is compiled for a layer's sizes and its layout on the GPU, which come
// as macros (nn/cuda_kernels.py); arguments are pointers, 64-bit integers and doubles.
#pragma once
#include "team.cuh"

constexpr bool lstm = DELTARNN_LSTM;
constexpr int gates = lstm ? 4 : 3;

#define DELTARNN_KERNEL extern "C" __global__ void __launch_bounds__(DELTARNN_THREADS, DELTARNN_BLOCKS)

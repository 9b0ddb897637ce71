// What the entry points have in common. A source is compiled for a layer's sizes and its layout on the GPU, which come
// as macros (nn/cuda_kernels.py); arguments are pointers and 64-bit integers, thresholds the bits of a float.
#pragma once
#include "team.cuh"

constexpr bool lstm = DELTARNN_LSTM;
constexpr int gates = lstm ? 4 : 3;
constexpr deltarnn::Scope scope = deltarnn::Scope(DELTARNN_SCOPE);
constexpr bool resident = DELTARNN_RESIDENT != 0, inputs_resident = DELTARNN_INPUTS_RESIDENT != 0,
               spread = DELTARNN_SPREAD != 0;

#define DELTARNN_KERNEL extern "C" __global__ void __launch_bounds__(DELTARNN_THREADS, DELTARNN_BLOCKS)

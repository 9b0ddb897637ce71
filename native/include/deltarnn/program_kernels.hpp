// Kernels of programs: dense products with weights that were packed beforehand.
#pragma once
#include <cstddef>

#include "deltarnn/dispatch.hpp"

namespace deltarnn {

constexpr int panel_columns = 32;  // columns of W whose rows lie next to each other

struct ProgramKernels {
    // out[r][0:n] = x[r][0:k]·W + bias, r < rows; rows of x and out are x_stride and out_stride apart. packed: W's
    // panels of panel_columns, each (k, panel_columns), zeros past n; bias as long.
    void (*linear)(const float* x, std::ptrdiff_t x_stride, int rows, const float* packed, const float* bias, int k,
                   float* out, std::ptrdiff_t out_stride, int n);
};

DELTARNN_DECLARE_TABLE(ProgramKernels, program_kernels)

const ProgramKernels& program_kernels(Isa isa);

}  // namespace deltarnn

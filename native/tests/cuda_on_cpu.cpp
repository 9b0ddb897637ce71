// The kernels of native/cuda for the CPU, called by name with an array of 64-bit arguments.
#include <bit>

#include "backward.cu"
#include "forward.cu"
#include "inputs.cu"
#include "weights.cu"

#define EXPORT(name)                                                                                    \
    extern "C" void run_##name(unsigned grid, unsigned block, unsigned shared_bytes, unsigned together, \
                               const std::uint64_t* arguments) {                                        \
        cuda_on_cpu::launch(name, {grid, block, shared_bytes, together}, arguments);                    \
    }

EXPORT(deltarnn_forward)
EXPORT(deltarnn_backward)
EXPORT(deltarnn_encode_inputs)
EXPORT(deltarnn_multiply_inputs)
EXPORT(deltarnn_pass_inputs_back)
EXPORT(deltarnn_take_gradients)

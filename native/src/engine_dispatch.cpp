#include "deltarnn/engine_kernels.hpp"

namespace deltarnn {

const FloatKernels& float_kernels(Isa isa) { DELTARNN_TABLE(float_kernels, isa) }
const Int8Kernels& int8_kernels(Isa isa) { DELTARNN_TABLE(int8_kernels, isa) }

}  // namespace deltarnn

#include "deltarnn/engine_kernels.hpp"

namespace deltarnn {

const EngineKernels& engine_kernels(Isa isa) { DELTARNN_TABLE(engine_kernels, isa) }

}  // namespace deltarnn

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "deltarnn/engine_kernels.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using FloatVector = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void apply_gate(bool hard, bool tanh, const FloatVector& from, const FloatVector& to) {
    if (from.shape(0) != to.shape(0)) throw nb::value_error("apply_gate: both arrays must have the same length");
    deltarnn::engine_kernels(deltarnn::active_isa())
        .apply_gate(hard, tanh, from.data(), to.data(), static_cast<int>(from.shape(0)));
}

}  // namespace

void bind_engine(nb::module_& module) {
    module.def("apply_gate", apply_gate, "hard"_a, "tanh"_a, "from_"_a, "to"_a,
               "The core's σ or tanh, element by element (for tests of each instruction set).");
}

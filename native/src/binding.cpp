#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "deltarnn/isa.hpp"

namespace nb = nanobind;

void bind_engine(nb::module_& module);
void bind_program(nb::module_& module);
void bind_signal(nb::module_& module);
void bind_spotter(nb::module_& module);
void bind_training(nb::module_& module);

NB_MODULE(_native, module) {
    module.doc() = "DeltaRNN's native core.";
    nb::set_leak_warnings(false);  // an object that lives until the interpreter ends is no leak
    module.def(
        "available_isas",
        [] {
            std::vector<std::string> names;
            for (const deltarnn::Isa isa : deltarnn::available_isas()) names.emplace_back(deltarnn::isa_name(isa));
            return names;
        },
        "Instruction sets of this build that this CPU supports, the best first.");
    module.def(
        "active_isa", [] { return std::string(deltarnn::isa_name(deltarnn::active_isa())); },
        "The instruction set in use: DELTARNN_ISA if set, else the best available.");
    bind_engine(module);
    bind_program(module);
    bind_signal(module);
    bind_spotter(module);
    bind_training(module);
}

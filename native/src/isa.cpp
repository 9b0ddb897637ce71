#include "deltarnn/isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace deltarnn {

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::neon: return "neon";
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        default: return "portable";
    }
}

std::vector<Isa> available_isas() {
    std::vector<Isa> found;
    // __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
#ifdef DELTARNN_HAS_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
        found.push_back(Isa::avx512);
    }
#endif
#ifdef DELTARNN_HAS_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(Isa::avx2);
#endif
#ifdef DELTARNN_HAS_NEON
    found.push_back(Isa::neon);
#endif
    found.push_back(Isa::portable);
    return found;
}

Isa active_isa() {
    const std::vector<Isa> found = available_isas();
    const char* wanted = std::getenv("DELTARNN_ISA");
    if (wanted == nullptr) return found.front();
    std::string names;
    for (const Isa isa : found) {
        if (std::string(wanted) == isa_name(isa)) return isa;
        names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    }
    throw std::runtime_error("DELTARNN_ISA=" + std::string(wanted) +
                             ": not an instruction set of this build and CPU; available: " + names +
                             " (unset the variable to use the best)");
}

}  // namespace deltarnn

// Instruction sets: which are compiled in, which this CPU has, which is in use.
#pragma once
#include <string>
#include <vector>

namespace deltarnn {

enum class Isa { portable, neon, avx2, avx512 };

const char* isa_name(Isa isa);

// Compiled in and supported by this CPU, the best first. Never empty: portable is always there.
std::vector<Isa> available_isas();

// The instruction set to use now: the one that the environment variable DELTARNN_ISA names, else the best available.
// Read at every call, so that a test can change it. Throws std::runtime_error, naming what is available, for a name
// that is unknown or that this CPU does not support.
Isa active_isa();

}  // namespace deltarnn

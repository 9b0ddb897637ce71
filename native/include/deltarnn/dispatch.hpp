// Choosing a kernel table at run time.
//
// A family of kernels is a struct of function pointers (plain data, shared by all instruction sets). Every
// *_kernels.cpp defines one object of it in the namespace of its instruction set, e.g.
//
//     namespace deltarnn::DELTARNN_ISA { extern const FloatKernels float_kernels = {…}; }
//
// A header declares it with DELTARNN_DECLARE_TABLE(FloatKernels, float_kernels), and a core source returns
// DELTARNN_TABLE(float_kernels, isa).
#pragma once
#include <stdexcept>

#include "deltarnn/isa.hpp"

// clang-format off
#define DELTARNN_DECLARE_TABLE(Type, name)            \
    namespace portable { extern const Type name; }    \
    namespace neon { extern const Type name; }        \
    namespace avx2 { extern const Type name; }        \
    namespace avx512 { extern const Type name; }

#ifdef DELTARNN_HAS_NEON
#define DELTARNN_CASE_NEON(name) case Isa::neon: return neon::name;
#else
#define DELTARNN_CASE_NEON(name)
#endif
#ifdef DELTARNN_HAS_AVX2
#define DELTARNN_CASE_AVX2(name) case Isa::avx2: return avx2::name;
#else
#define DELTARNN_CASE_AVX2(name)
#endif
#ifdef DELTARNN_HAS_AVX512
#define DELTARNN_CASE_AVX512(name) case Isa::avx512: return avx512::name;
#else
#define DELTARNN_CASE_AVX512(name)
#endif

// The whole body of a function `const Type& f(Isa isa)`.
#define DELTARNN_TABLE(name, isa)                                    \
    switch (isa) {                                                   \
        DELTARNN_CASE_NEON(name)                                     \
        DELTARNN_CASE_AVX2(name)                                     \
        DELTARNN_CASE_AVX512(name)                                   \
        case Isa::portable: return portable::name;                   \
        default: throw std::logic_error("instruction set not compiled in"); \
    }
// clang-format on

// The part of ONNX Runtime's C API that the operators use, declared here so that the package builds without its
// headers, which come with none of its Python packages.
//
// The API is a struct of function pointers. New versions add to its end and change nothing before it, which ONNX
// Runtime asserts when it is compiled; the slots below are all of version 1, the first 102. A custom operator is a
// struct, too; ONNX Runtime reads as many of its fields as belong to the version that it names.
// tests/onnx/test_operator_library.py loads the library into ONNX Runtime, and compares this file with its headers
// where they are installed.
//
// Source: onnxruntime_c_api.h, https://onnxruntime.ai/docs/api/c/
#pragma once
#include <cstddef>
#include <cstdint>

namespace deltarnn::ort {

struct Status;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
struct SessionOptions;
struct OpDomain;

#if defined(_WIN32)
#define DELTARNN_ORT_CALL __stdcall
#else
#define DELTARNN_ORT_CALL
#endif

// The oldest whose operators report errors (CreateKernelV2, KernelComputeV2): ONNX Runtime 1.16.
constexpr std::uint32_t api_version = 16;

enum ErrorCode : int { fail = 1, invalid_argument = 2 };
enum ElementType : int {
    undefined = 0,
    float32 = 1,
    uint8 = 2,
    int8 = 3,
    uint16 = 4,
    int16 = 5,
    int32 = 6,
    int64 = 7,
    boolean = 9,
    uint32 = 12,
    uint64 = 13,
};
enum Characteristic : int { variadic = 2 };

// Functions by their slots.
template <int slot, class Result, class... Arguments>
struct Function {
    static Result call(const void* api, Arguments... arguments) {
        using Pointer = Result(DELTARNN_ORT_CALL*)(Arguments...);
        return reinterpret_cast<Pointer>(static_cast<void* const*>(api)[slot])(arguments...);
    }
};

using CreateStatus = Function<0, Status*, ErrorCode, const char*>;
using CreateCustomOpDomain = Function<26, Status*, const char*, OpDomain**>;
using CustomOpDomain_Add = Function<27, Status*, OpDomain*, const struct CustomOp*>;
using AddCustomOpDomain = Function<28, Status*, SessionOptions*, OpDomain*>;
using GetTensorMutableData = Function<51, Status*, Value*, void**>;
using GetTensorElementType = Function<60, Status*, const TensorInfo*, ElementType*>;
using GetDimensionsCount = Function<61, Status*, const TensorInfo*, std::size_t*>;
using GetDimensions = Function<62, Status*, const TensorInfo*, std::int64_t*, std::size_t>;
using GetTensorTypeAndShape = Function<65, Status*, const Value*, TensorInfo**>;
using KernelInfoGetAttribute_string = Function<87, Status*, const KernelInfo*, const char*, char*, std::size_t*>;
using KernelContext_GetInputCount = Function<88, Status*, const KernelContext*, std::size_t*>;
using KernelContext_GetInput = Function<90, Status*, const KernelContext*, std::size_t, const Value**>;
using KernelContext_GetOutput =
    Function<91, Status*, KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**>;
using ReleaseTensorTypeAndShapeInfo = Function<99, void, TensorInfo*>;

struct ApiBase {
    const void*(DELTARNN_ORT_CALL* get_api)(std::uint32_t version);
    const char*(DELTARNN_ORT_CALL* get_version_string)();
};

// OrtCustomOp up to version 16.
struct CustomOp {
    std::uint32_t version;
    void*(DELTARNN_ORT_CALL* create_kernel)(const CustomOp*, const void* api, const KernelInfo*);
    const char*(DELTARNN_ORT_CALL* name)(const CustomOp*);
    const char*(DELTARNN_ORT_CALL* execution_provider)(const CustomOp*);
    ElementType(DELTARNN_ORT_CALL* input_type)(const CustomOp*, std::size_t);
    std::size_t(DELTARNN_ORT_CALL* input_count)(const CustomOp*);
    ElementType(DELTARNN_ORT_CALL* output_type)(const CustomOp*, std::size_t);
    std::size_t(DELTARNN_ORT_CALL* output_count)(const CustomOp*);
    void(DELTARNN_ORT_CALL* compute)(void* kernel, KernelContext*);
    void(DELTARNN_ORT_CALL* destroy)(void* kernel);
    Characteristic(DELTARNN_ORT_CALL* input_characteristic)(const CustomOp*, std::size_t);
    Characteristic(DELTARNN_ORT_CALL* output_characteristic)(const CustomOp*, std::size_t);
    int(DELTARNN_ORT_CALL* input_memory)(const CustomOp*, std::size_t);
    int(DELTARNN_ORT_CALL* fewest_inputs)(const CustomOp*);
    int(DELTARNN_ORT_CALL* inputs_alike)(const CustomOp*);
    int(DELTARNN_ORT_CALL* fewest_outputs)(const CustomOp*);
    int(DELTARNN_ORT_CALL* outputs_alike)(const CustomOp*);
    Status*(DELTARNN_ORT_CALL* create_kernel_v2)(const CustomOp*, const void* api, const KernelInfo*, void** kernel);
    Status*(DELTARNN_ORT_CALL* compute_v2)(void* kernel, KernelContext*);
};

}  // namespace deltarnn::ort

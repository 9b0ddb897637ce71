// A stand-in for ONNX Runtime: the functions of its C API that the operators call, and the operators that they
// register.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../onnxruntime/ort_api.hpp"

namespace deltarnn::ort {

struct Status {
    std::string message;
};
struct KernelInfo {
    std::string data;
};
// Data in a block of its exact size, so that a step beyond it is seen.
struct Value {
    ElementType type;
    std::vector<std::int64_t> sizes;
    std::vector<char> data;
};
struct TensorInfo {
    const Value* value;
};
struct KernelContext {
    std::vector<Value> inputs, outputs;
};
struct OpDomain {
    std::vector<const CustomOp*> operators;
};
struct SessionOptions {
    const OpDomain* domain;
};

}  // namespace deltarnn::ort

extern "C" deltarnn::ort::Status* RegisterCustomOps(deltarnn::ort::SessionOptions* options,
                                                    const deltarnn::ort::ApiBase* base);

namespace {

namespace ort = deltarnn::ort;

std::size_t bytes_of(ort::ElementType type, const std::vector<std::int64_t>& sizes) {
    std::size_t count = type == ort::int64 ? 8 : 4;
    for (const std::int64_t size : sizes) count *= static_cast<std::size_t>(size);
    return count;
}

ort::Value value_of(ort::ElementType type, const std::vector<std::int64_t>& sizes) {
    return {type, sizes, std::vector<char>(bytes_of(type, sizes))};
}

ort::Status* create_status(ort::ErrorCode, const char* message) { return new ort::Status{message}; }

ort::Status* create_domain(const char*, ort::OpDomain** out) {
    static ort::OpDomain domain;
    *out = &domain;
    return nullptr;
}

ort::Status* add_operator(ort::OpDomain* domain, const ort::CustomOp* op) {
    domain->operators.push_back(op);
    return nullptr;
}

ort::Status* add_domain(ort::SessionOptions* options, ort::OpDomain* domain) {
    options->domain = domain;
    return nullptr;
}

ort::Status* data_of(ort::Value* value, void** out) {
    *out = value->data.data();
    return nullptr;
}

ort::Status* type_of(const ort::TensorInfo* info, ort::ElementType* out) {
    *out = info->value->type;
    return nullptr;
}

ort::Status* rank_of(const ort::TensorInfo* info, std::size_t* out) {
    *out = info->value->sizes.size();
    return nullptr;
}

ort::Status* sizes_of(const ort::TensorInfo* info, std::int64_t* out, std::size_t rank) {
    std::copy_n(info->value->sizes.begin(), rank, out);
    return nullptr;
}

ort::Status* info_of(const ort::Value* value, ort::TensorInfo** out) {
    *out = new ort::TensorInfo{value};
    return nullptr;
}

ort::Status* attribute_of(const ort::KernelInfo* info, const char*, char* out, std::size_t* size) {
    *size = info->data.size() + 1;
    if (out != nullptr) std::memcpy(out, info->data.c_str(), *size);
    return nullptr;
}

ort::Status* input_count(const ort::KernelContext* context, std::size_t* out) {
    *out = context->inputs.size();
    return nullptr;
}

ort::Status* input_of(const ort::KernelContext* context, std::size_t index, const ort::Value** out) {
    if (index >= context->inputs.size()) return new ort::Status{"no such input"};
    *out = &context->inputs[index];
    return nullptr;
}

ort::Status* output_of(ort::KernelContext* context, std::size_t index, const std::int64_t* sizes, std::size_t rank,
                       ort::Value** out) {
    if (index >= context->outputs.size()) return new ort::Status{"no such output"};
    context->outputs[index] = value_of(ort::float32, {sizes, sizes + rank});
    *out = &context->outputs[index];
    return nullptr;
}

void release(ort::TensorInfo* info) { delete info; }

std::array<void*, 102> functions;

const void* api_of(std::uint32_t) { return functions.data(); }
const char* version_string() { return "1.16"; }

template <class Pointer>
void* slot(Pointer pointer) {
    return reinterpret_cast<void*>(pointer);
}

// The operators that the library registers, from the last of two sessions; none where it fails.
std::vector<const ort::CustomOp*> registered() {
    functions[0] = slot(create_status);
    functions[26] = slot(create_domain);
    functions[27] = slot(add_operator);
    functions[28] = slot(add_domain);
    functions[51] = slot(data_of);
    functions[60] = slot(type_of);
    functions[61] = slot(rank_of);
    functions[62] = slot(sizes_of);
    functions[65] = slot(info_of);
    functions[87] = slot(attribute_of);
    functions[88] = slot(input_count);
    functions[90] = slot(input_of);
    functions[91] = slot(output_of);
    functions[99] = slot(release);
    const ort::ApiBase base = {api_of, version_string};
    ort::SessionOptions options = {};
    for (int session = 0; session < 2; ++session) {
        if (RegisterCustomOps(&options, &base) != nullptr) return {};
    }
    return options.domain->operators;
}

}  // namespace

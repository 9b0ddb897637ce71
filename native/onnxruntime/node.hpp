// What ONNX Runtime hands to a node: the attribute it is made of, and the tensors of each run. Errors of ONNX Runtime
// become exceptions.
#pragma once

#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "ort_api.hpp"

namespace deltarnn {

// An error of ONNX Runtime's own, on its way back to it.
struct Failure {
    ort::Status* status;
};

inline void succeed(ort::Status* status) {
    if (status != nullptr) throw Failure{status};
}

inline std::string attribute(const void* api, const ort::KernelInfo* info) {
    std::size_t size = 0;
    succeed(ort::KernelInfoGetAttribute_string::call(api, info, "data", nullptr, &size));
    std::string bytes(size, '\0');
    succeed(ort::KernelInfoGetAttribute_string::call(api, info, "data", bytes.data(), &size));
    bytes.resize(size > 0 ? size - 1 : 0);  // without the zero at its end
    return bytes;
}

struct Tensor {
    ort::ElementType type;
    std::vector<std::int64_t> sizes;
    void* data;

    std::int64_t count() const {
        return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1},
                               [](std::int64_t a, std::int64_t b) { return a * b; });
    }
};

template <class Number>
std::int64_t one(const Tensor& tensor) {
    return static_cast<std::int64_t>(*static_cast<const Number*>(tensor.data));
}

// The value of a tensor that holds one whole number or boolean; nothing of any other.
inline std::optional<std::int64_t> whole_number(const Tensor& tensor) {
    if (tensor.count() != 1) return {};
    switch (tensor.type) {
        case ort::boolean:
        case ort::uint8: return one<std::uint8_t>(tensor);
        case ort::int8: return one<std::int8_t>(tensor);
        case ort::uint16: return one<std::uint16_t>(tensor);
        case ort::int16: return one<std::int16_t>(tensor);
        case ort::uint32: return one<std::uint32_t>(tensor);
        case ort::int32: return one<std::int32_t>(tensor);
        case ort::uint64:
        case ort::int64: return one<std::int64_t>(tensor);
        default: return {};
    }
}

// The inputs and outputs of one run of a node.
class Call {
  public:
    Call(const void* api, ort::KernelContext* context) : api_(api), context_(context) {}

    std::size_t inputs() const {
        std::size_t count = 0;
        succeed(ort::KernelContext_GetInputCount::call(api_, context_, &count));
        return count;
    }

    Tensor input(std::size_t index) const {
        const ort::Value* value = nullptr;
        succeed(ort::KernelContext_GetInput::call(api_, context_, index, &value));
        ort::TensorInfo* info = nullptr;
        succeed(ort::GetTensorTypeAndShape::call(api_, value, &info));
        Tensor tensor = {ort::undefined, {}, nullptr};
        std::size_t rank = 0;
        ort::Status* status = ort::GetTensorElementType::call(api_, info, &tensor.type);
        if (status == nullptr) status = ort::GetDimensionsCount::call(api_, info, &rank);
        tensor.sizes.resize(rank);
        if (status == nullptr) status = ort::GetDimensions::call(api_, info, tensor.sizes.data(), rank);
        ort::ReleaseTensorTypeAndShapeInfo::call(api_, info);
        succeed(status);
        succeed(ort::GetTensorMutableData::call(api_, const_cast<ort::Value*>(value), &tensor.data));
        return tensor;
    }

    float* output(std::size_t index, const std::vector<std::int64_t>& sizes) const {
        ort::Value* value = nullptr;
        succeed(ort::KernelContext_GetOutput::call(api_, context_, index, sizes.data(), sizes.size(), &value));
        void* data = nullptr;
        succeed(ort::GetTensorMutableData::call(api_, value, &data));
        return static_cast<float*>(data);
    }

  private:
    const void* api_;
    ort::KernelContext* context_;
};

}  // namespace deltarnn

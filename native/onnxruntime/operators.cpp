// Operators of the domain "deltarnn" for ONNX Runtime: a whole network of known sizes (Program), and delta layers in
// place of GRU and LSTM operators (Recurrent). Each node keeps the delta states of one stream. Bytes as of package.hpp
// are their attribute "data".
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>

#include "deltarnn/package.hpp"
#include "node.hpp"

namespace {

using namespace deltarnn;

// A node of a session. Several threads may run the session: the mutex lets one at a time use the delta states.
class Kernel {
  public:
    explicit Kernel(const void* api) : api_(api) {}
    virtual ~Kernel() = default;

    void compute(ort::KernelContext* context) {
        const std::lock_guard<std::mutex> guard(mutex_);
        run(Call(api_, context));
    }
    ort::Status* status(const char* message) const {
        return ort::CreateStatus::call(api_, ort::invalid_argument, message);
    }

  private:
    virtual void run(const Call& call) = 0;

    const void* api_;
    std::mutex mutex_;
};

template <class Owner>
auto bare(const std::vector<Owner>& owners) {
    std::vector<decltype(owners.front().get())> pointers;
    for (const Owner& owner : owners) pointers.push_back(owner.get());
    return pointers;
}

class ProgramKernel final : public Kernel {
  public:
    ProgramKernel(const void* api, std::string_view bytes)
        : Kernel(api), package_(read_program(bytes, active_isa())), streams_(started(package_.models)),
          state_(package_.program, bare(streams_), bare(package_.models)) {}

  private:
    static std::vector<std::unique_ptr<Stream>> started(const std::vector<std::shared_ptr<const Model>>& models) {
        std::vector<std::unique_ptr<Stream>> streams;
        for (const auto& model : models) streams.push_back(model->stream());
        return streams;
    }

    void run(const Call& call) override {
        const std::size_t signals = package_.inputs.size();
        if (call.inputs() != signals + package_.fixed.size())
            throw std::invalid_argument("deltarnn.Program: inputs are missing");
        for (std::size_t i = 0; i < signals; ++i) {
            const Tensor given = call.input(i);
            const ProgramPackage::Place& place = package_.inputs[i];
            if (given.type != ort::float32 || given.sizes != place.sizes) {
                throw std::invalid_argument("deltarnn.Program: input " + std::to_string(i) +
                                            " has other sizes than the network was exported for");
            }
            std::copy_n(static_cast<const float*>(given.data), place.count(), state_.arena() + place.position);
        }
        for (std::size_t i = 0; i < package_.fixed.size(); ++i) {
            if (whole_number(call.input(signals + i)) != package_.fixed[i]) {
                throw std::invalid_argument("deltarnn.Program: the network was exported for the value " +
                                            std::to_string(package_.fixed[i]) + " of input " +
                                            std::to_string(signals + i));
            }
        }
        state_.run();
        for (std::size_t i = 0; i < package_.outputs.size(); ++i) {
            const ProgramPackage::Place& place = package_.outputs[i];
            std::copy_n(state_.arena() + place.position, place.count(), call.output(i, place.sizes));
        }
    }

    const ProgramPackage package_;
    const std::vector<std::unique_ptr<Stream>> streams_;
    ProgramState state_;
};

class SiteKernel final : public Kernel {
  public:
    SiteKernel(const void* api, std::string_view bytes)
        : Kernel(api), package_(read_site(bytes, active_isa())), streams_(package_.models.size()) {}

  private:
    void run(const Call& call) override {
        const auto& first = *package_.models.front();
        const std::int64_t inputs = first.input_size(), outputs = first.output_size(),
                           directions = package_.models.size();
        const std::int64_t cells = first.shapes().front().hidden;
        const Tensor x = call.input(0);
        const std::size_t rank = package_.is_cell ? 2 : 3;
        if (x.type != ort::float32 || x.sizes.size() != rank || x.sizes.back() != inputs) {
            throw std::invalid_argument("deltarnn.Recurrent: its input must be float32 with " + std::to_string(inputs) +
                                        " features");
        }
        const std::int64_t steps = package_.is_cell ? 1 : x.sizes[package_.batch_first ? 1 : 0];
        const std::int64_t batch = x.sizes[package_.is_cell || package_.batch_first ? 0 : 1];
        std::size_t next = 1;
        const Tensor lengths = package_.has_lengths ? call.input(next++) : Tensor{};
        const Tensor h = package_.has_h ? call.input(next++) : Tensor{},
                     c = package_.has_c ? call.input(next++) : Tensor{};
        if (package_.has_lengths && (lengths.type != ort::int32 || lengths.count() != batch)) {
            throw std::invalid_argument("deltarnn.Recurrent: one length, int32, for each sequence of the batch");
        }
        const auto check_state = [&](const Tensor& state, std::int64_t width) {
            if (state.type != ort::float32 || state.count() != directions * batch * width) {
                throw std::invalid_argument("deltarnn.Recurrent: an initial state has another size");
            }
        };
        if (package_.has_h) check_state(h, outputs);
        if (package_.has_c) check_state(c, cells);
        float* const y = package_.gives_y ? call.output(0, sequence(steps, directions, batch, outputs)) : nullptr;
        std::size_t out = package_.gives_y;
        float* const next_h = package_.gives_h ? call.output(out++, state(directions, batch, outputs)) : nullptr;
        float* const next_c = package_.gives_c ? call.output(out++, state(directions, batch, cells)) : nullptr;
        last_h_.resize(outputs);
        last_c_.resize(cells);
        for (std::int64_t way = 0; way < directions; ++way) {
            while (static_cast<std::int64_t>(streams_[way].size()) < batch)
                streams_[way].push_back(package_.models[way]->stream());
            for (std::int64_t row = 0; row < batch; ++row) {
                Stream& stream = *streams_[way][row];
                const std::int64_t place =
                    package_.batch_first && !package_.is_cell ? row * directions + way : way * batch + row;
                const float* const from_h =
                    package_.has_h ? static_cast<const float*>(h.data) + place * outputs : nullptr;
                const float* const from_c =
                    package_.has_c ? static_cast<const float*>(c.data) + place * cells : nullptr;
                const std::int64_t count =
                    package_.has_lengths ? static_cast<const std::int32_t*>(lengths.data)[row] : steps;
                if (count < 0 || count > steps)
                    throw std::invalid_argument("deltarnn.Recurrent: a length beyond the sequence");
                if (count > 0) stream.enter(from_h, from_c, package_.held);
                steps_of(static_cast<const float*>(x.data), stream, way, row, count, steps, batch, directions, y);
                if (count > 0) {
                    stream.hidden(last_h_.data(), last_c_.data());
                } else {  // of no steps ONNX Runtime makes zeros, whatever the initial state
                    std::fill(last_h_.begin(), last_h_.end(), 0.0f);
                    std::fill(last_c_.begin(), last_c_.end(), 0.0f);
                }
                if (next_h != nullptr) std::copy_n(last_h_.data(), outputs, next_h + place * outputs);
                if (next_c != nullptr) std::copy_n(last_c_.data(), cells, next_c + place * cells);
            }
        }
    }

    void steps_of(const float* x, Stream& stream, std::int64_t way, std::int64_t row, std::int64_t count,
                  std::int64_t steps, std::int64_t batch, std::int64_t directions, float* y) {
        const std::int64_t inputs = package_.models[way]->input_size(), outputs = package_.models[way]->output_size();
        const bool rows_first = package_.batch_first && !package_.is_cell;
        frames_.resize(count * inputs);
        results_.resize(count * outputs);
        const auto at = [&](std::int64_t t) { return package_.reverse[way] ? count - 1 - t : t; };
        for (std::int64_t t = 0; t < count; ++t) {
            const std::int64_t from = rows_first ? row * steps + at(t) : at(t) * batch + row;
            std::copy_n(x + from * inputs, inputs, frames_.data() + t * inputs);
        }
        if (stream.run(frames_.data(), count, results_.data()) < count) {
            throw std::invalid_argument(
                "deltarnn.Recurrent: a recurrent part gets NaN, which has no fixed-point value");
        }
        if (y == nullptr) return;
        const auto to = [&](std::int64_t t) {
            return y +
                   (rows_first ? (row * steps + t) * directions + way : (t * directions + way) * batch + row) * outputs;
        };
        for (std::int64_t t = 0; t < count; ++t) std::copy_n(results_.data() + t * outputs, outputs, to(at(t)));
        for (std::int64_t t = count; t < steps; ++t) std::fill_n(to(t), outputs, 0.0f);
    }

    std::vector<std::int64_t> sequence(std::int64_t steps, std::int64_t directions, std::int64_t batch,
                                       std::int64_t width) const {
        return package_.batch_first ? std::vector{batch, steps, directions, width}
                                    : std::vector{steps, directions, batch, width};
    }

    std::vector<std::int64_t> state(std::int64_t directions, std::int64_t batch, std::int64_t width) const {
        if (package_.is_cell) return {batch, width};
        return package_.batch_first ? std::vector{batch, directions, width} : std::vector{directions, batch, width};
    }

    const SitePackage package_;
    std::vector<std::vector<std::unique_ptr<Stream>>> streams_;  // by direction and row of the batch
    std::vector<float> frames_, results_, last_h_, last_c_;
};

template <class KernelType>
ort::Status* DELTARNN_ORT_CALL create(const ort::CustomOp*, const void* api, const ort::KernelInfo* info,
                                      void** kernel) {
    try {
        *kernel = static_cast<Kernel*>(new KernelType(api, attribute(api, info)));
        return nullptr;
    } catch (const Failure& failure) {
        return failure.status;
    } catch (const std::exception& error) {
        return ort::CreateStatus::call(api, ort::invalid_argument, error.what());
    }
}

ort::Status* DELTARNN_ORT_CALL compute(void* kernel, ort::KernelContext* context) {
    Kernel& self = *static_cast<Kernel*>(kernel);
    try {
        self.compute(context);
        return nullptr;
    } catch (const Failure& failure) {
        return failure.status;
    } catch (const std::exception& error) {
        return self.status(error.what());
    }
}

void DELTARNN_ORT_CALL destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }

// Any number of inputs of any type, any number of float32 outputs.
template <class KernelType>
ort::CustomOp custom_op(const char*(DELTARNN_ORT_CALL* name)(const ort::CustomOp*)) {
    ort::CustomOp op = {};
    op.version = ort::api_version;
    op.name = name;
    op.execution_provider = [](const ort::CustomOp*) -> const char* { return nullptr; };
    op.input_type = [](const ort::CustomOp*, std::size_t) { return ort::undefined; };
    op.input_count = [](const ort::CustomOp*) { return std::size_t{1}; };
    op.output_type = [](const ort::CustomOp*, std::size_t) { return ort::float32; };
    op.output_count = [](const ort::CustomOp*) { return std::size_t{1}; };
    op.destroy = destroy;
    op.input_characteristic = [](const ort::CustomOp*, std::size_t) { return ort::variadic; };
    op.output_characteristic = [](const ort::CustomOp*, std::size_t) { return ort::variadic; };
    op.input_memory = [](const ort::CustomOp*, std::size_t) { return 0; };
    op.fewest_inputs = [](const ort::CustomOp*) { return 1; };
    op.inputs_alike = [](const ort::CustomOp*) { return 0; };
    op.fewest_outputs = [](const ort::CustomOp*) { return 1; };
    op.outputs_alike = [](const ort::CustomOp*) { return 1; };
    op.create_kernel_v2 = create<KernelType>;
    op.compute_v2 = compute;
    return op;
}

ort::Status* registered(const void* api, ort::SessionOptions* options) {
    static const ort::CustomOp program = custom_op<ProgramKernel>([](const ort::CustomOp*) { return "Program"; });
    static const ort::CustomOp recurrent = custom_op<SiteKernel>([](const ort::CustomOp*) { return "Recurrent"; });
    static std::mutex mutex;
    static ort::OpDomain* domain = nullptr;  // for all sessions, for the life of the process: sessions keep its address
    const std::lock_guard<std::mutex> guard(mutex);
    if (domain == nullptr) {
        ort::OpDomain* made = nullptr;
        succeed(ort::CreateCustomOpDomain::call(api, "deltarnn", &made));
        for (const ort::CustomOp* op : {&program, &recurrent}) succeed(ort::CustomOpDomain_Add::call(api, made, op));
        domain = made;
    }
    return ort::AddCustomOpDomain::call(api, options, domain);
}

}  // namespace

// What ONNX Runtime calls in a library that it is given (SessionOptions.register_custom_ops_library,
// RegisterCustomOpLibrary, …).
extern "C" __attribute__((visibility("default"))) ort::Status* DELTARNN_ORT_CALL
RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
    const void* const api = base->get_api(ort::api_version);
    if (api == nullptr) {
        return ort::CreateStatus::call(base->get_api(1), ort::fail,
                                       "DeltaRNN's operators need ONNX Runtime 1.16 or later");
    }
    try {
        return registered(api, options);
    } catch (const Failure& failure) {
        return failure.status;
    }
}

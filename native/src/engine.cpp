#include "deltarnn/engine.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace deltarnn {

void check(const LayerShape& shape) {
    // A column's offset is computed as index · stride, both well within an int.
    constexpr int limit = 1 << 20;
    if (shape.input < 1 || shape.hidden < 1 || shape.projection < 0 || shape.input > limit || shape.hidden > limit ||
        shape.projection >= shape.hidden || (shape.cell == Cell::gru && shape.projection > 0) ||
        (shape.cell == Cell::lstm && shape.reset_before)) {
        throw std::invalid_argument("layer sizes out of range");
    }
}

DenseLayer::DenseLayer(const DenseSpec& spec, const FloatKernels& kernels)
    : inputs(spec.inputs), outputs(spec.outputs), kernels_(kernels), relu_(spec.relu),
      columns_(static_cast<std::size_t>(spec.inputs) * round_up(spec.outputs, row_padding)),
      bias_(round_up(spec.outputs, row_padding)) {
    const std::size_t stride = bias_.size();
    for (int row = 0; row < outputs; ++row) {
        for (int j = 0; j < inputs; ++j)
            columns_[j * stride + row] = spec.weight[static_cast<std::size_t>(row) * inputs + j];
    }
    std::copy_n(spec.bias, outputs, bias_.data());
}

void DenseLayer::run(const float* x, float* y) const {
    const int rows = static_cast<int>(bias_.size());
    std::copy_n(bias_.data(), rows, y);
    for (int row = 0; row < rows;) {
        const int here = rows - row >= 32 ? 32 : row_padding;
        kernels_.float32.add_block(y + row, columns_.data() + row, rows, x, inputs, here);
        row += here;
    }
    if (relu_) {
        for (int row = 0; row < outputs; ++row) y[row] = y[row] < 0.0f ? 0.0f : y[row];
    }
}

Model::Model(Isa isa, std::vector<LayerShape> shapes, const std::vector<DenseSpec>& head)
    : isa_(isa), shapes_(std::move(shapes)) {
    if (shapes_.empty()) throw std::invalid_argument("a model needs at least one recurrent layer");
    for (std::size_t i = 1; i < shapes_.size(); ++i) {
        if (shapes_[i].input != shapes_[i - 1].outputs())
            throw std::invalid_argument("layer sizes do not follow each other");
    }
    input_size_ = shapes_.front().input;
    output_size_ = shapes_.back().outputs();
    for (const DenseSpec& spec : head) {
        if (spec.inputs != output_size_) throw std::invalid_argument("head sizes do not follow each other");
        head_.emplace_back(spec, float_kernels(isa));
        output_size_ = spec.outputs;
    }
}

namespace {

const FloatKernels& kernels_for(const FloatLayerSpec&, Isa isa) { return float_kernels(isa); }
const Int8Kernels& kernels_for(const Int8LayerSpec&, Isa isa) { return int8_kernels(isa); }

template <class Spec>
std::vector<LayerShape> shapes_of(const std::vector<Spec>& layers) {
    std::vector<LayerShape> shapes;
    for (const Spec& layer : layers) shapes.push_back(layer.shape);
    return shapes;
}

std::size_t bytes_of(const FloatLayer& l) {
    return l.input_columns.bytes() + l.hidden_columns.bytes() + l.reset_columns.bytes() + l.projection_columns.bytes();
}
std::size_t bytes_of(const Int8Layer& l) {
    return l.input_columns.size() + l.hidden_columns.size() + l.projection_columns.size();
}
bool is_wide(const FloatLayer&) { return false; }
bool is_wide(const Int8Layer& layer) { return layer.wide; }

// Frames enter and results leave as floats; inside, a fixed-point model holds integers. Float layers convert nothing.

// n values of a frame, padding included, in place, to the first layer's format of x. False if one is NaN.
bool quantize_input(const FloatLayer&, float*, int) { return true; }
bool quantize_input(const Int8Layer& layer, std::int32_t* values, int n) {
    // `values` holds floats still; the kernel stores each vector of integers after it has loaded those floats.
    return layer.kernels.quantize(layer.formats.input, layer.formats.floor, reinterpret_cast<const float*>(values),
                                  values, n);
}
// n values of h or c as floats.
void dequantize(const FloatLayer&, const float* values, float* out, int n, StateField = StateField::h) {
    std::copy_n(values, n, out);
}
void dequantize(const Int8Layer& layer, const std::int32_t* values, float* out, int n,
                StateField field = StateField::h) {
    const IntFormat& format = field == StateField::h ? layer.formats.hidden : layer.formats.cell;
    const float step = std::ldexp(1.0f, -format.fraction);
    for (int i = 0; i < n; ++i) out[i] = static_cast<float>(values[i]) * step;
}
// n values, padding included, in place, from one layer's format of h to the next one's format of x.
void requantize(const FloatLayer&, const FloatLayer&, float*, int) {}
void requantize(const Int8Layer& from, const Int8Layer& to, std::int32_t* values, int n) {
    const IntFormat &h = from.formats.hidden, &x = to.formats.input;
    if (h.fraction == x.fraction && h.max <= x.max) return;
    to.kernels.rescale(x, h.fraction - x.fraction, to.formats.floor, values, n);
}

bool set(FloatLayerState& state, const float* h, const float* c) {
    state.set(h, c);
    return true;
}
bool set(Int8LayerState& state, const float* h, const float* c) { return state.set(h, c); }

template <class Layer, class State, class Spec>
class ModelOf final : public Model {
  public:
    ModelOf(Isa isa, const std::vector<Spec>& layers, const std::vector<DenseSpec>& head)
        : Model(isa, shapes_of(layers), head) {
        for (const Spec& spec : layers) layers_.push_back(std::make_unique<Layer>(spec, kernels_for(spec, isa)));
    }

    std::unique_ptr<Stream> stream() const override;
    bool wide(int layer) const override { return is_wide(*layers_.at(layer)); }
    std::size_t weight_bytes() const override {
        std::size_t bytes = 0;
        for (const auto& layer : layers_) bytes += bytes_of(*layer);
        return bytes;
    }

  private:
    using Value = typename Layer::Value;

    class StreamOf final : public Stream {
      public:
        explicit StreamOf(std::shared_ptr<const ModelOf> model) : model_(std::move(model)) {
            int widest = 0;
            for (const auto& layer : model_->layers_) {
                states_.emplace_back(*layer);
                widest = std::max({widest, layer->shape.padded_input(), layer->shape.padded_outputs()});
            }
            for (AlignedArray<Value>& part : chunk_)
                part = AlignedArray<Value>(static_cast<std::size_t>(chunk_frames) * widest);
            for (const DenseLayer& dense : model_->head_)
                widest = std::max(widest, round_up(dense.outputs, row_padding));
            for (AlignedArray<float>& scores : scores_) scores = AlignedArray<float>(widest);
        }

        void reset() override {
            for (State& state : states_) state.reset();
            begun_ = false;
        }

        bool enter(const float* h, const float* c, bool held) override {
            const bool begun = std::exchange(begun_, true);
            if (begun && (held || (h != nullptr && is_present(h, c)))) return true;
            for (std::size_t i = 0; i < states_.size(); ++i) {
                states_[i].restart();
                if (h == nullptr && c == nullptr) continue;
                const LayerShape& shape = model_->shapes_[i];
                if (!set(states_[i], row(h, i, shape.outputs()), row(c, i, shape.hidden))) {
                    throw std::invalid_argument("the initial state holds NaN, which has no fixed-point value");
                }
            }
            return false;
        }

        void hidden(float* h, float* c) const override {
            for (std::size_t i = 0; i < states_.size(); ++i) {
                const LayerShape& shape = model_->shapes_[i];
                dequantize(*model_->layers_[i], states_[i].h(), h + i * shape.outputs(), shape.outputs());
                if (shape.cell == Cell::lstm) {
                    dequantize(*model_->layers_[i], states_[i].c(), c + i * shape.hidden, shape.hidden, StateField::c);
                }
            }
        }

        std::int64_t run(const float* frames, std::int64_t count, float* out) override {
            const int inputs = model_->input_size_, outputs = model_->output_size_;
            for (std::int64_t start = 0; start < count; start += chunk_frames) {
                const int wanted = static_cast<int>(std::min<std::int64_t>(chunk_frames, count - start));
                const int here = load(frames + start * inputs, wanted);
                if (here > 0) run_chunk(here, out + start * outputs);
                if (here < wanted) return start + here;
            }
            return count;
        }

        std::vector<double> read(int layer, StateField field) const override { return states_.at(layer).read(field); }
        Activity activity(int layer) const override { return states_.at(layer).activity(); }

      private:
        static const float* row(const float* values, std::size_t layer, int width) {
            return values == nullptr ? nullptr : values + layer * width;
        }

        bool is_present(const float* h, const float* c) {
            const LayerShape& shape = model_->shapes_.front();
            const std::size_t outputs = states_.size() * shape.outputs();
            const std::size_t cells = shape.cell == Cell::lstm && c != nullptr ? states_.size() * shape.hidden : 0;
            present_.resize(outputs + states_.size() * shape.hidden);
            hidden(present_.data(), present_.data() + outputs);
            return std::equal(h, h + outputs, present_.data()) &&
                   (cells == 0 || std::equal(c, c + cells, present_.data() + outputs));
        }

        // Frames into the first chunk, as many as can be represented.
        int load(const float* frames, int count) {
            const Layer& first = *model_->layers_.front();
            const int inputs = model_->input_size_, ip = first.shape.padded_input();
            for (int t = 0; t < count; ++t) {
                Value* to = chunk_[0].data() + t * ip;
                static_assert(sizeof(Value) == sizeof(float));
                std::memcpy(to, frames + static_cast<std::int64_t>(t) * inputs, inputs * sizeof(float));
                std::fill(to + inputs, to + ip, Value{});
                if (!quantize_input(first, to, ip)) return t;
            }
            return count;
        }

        void run_chunk(int count, float* out) {
            int now = 0;
            for (std::size_t i = 0; i < states_.size(); ++i) {
                const Layer& layer = *model_->layers_[i];
                if (i > 0)
                    requantize(*model_->layers_[i - 1], layer, chunk_[now].data(), count * layer.shape.padded_input());
                states_[i].run(chunk_[now].data(), count, chunk_[1 - now].data());
                now = 1 - now;
            }
            const Layer& last = *model_->layers_.back();
            const int op = last.shape.padded_outputs(), outputs = model_->output_size_;
            for (int t = 0; t < count; ++t) {
                const Value* h = chunk_[now].data() + t * op;
                if (model_->head_.empty()) {
                    dequantize(last, h, out + static_cast<std::int64_t>(t) * outputs, outputs);
                    continue;
                }
                int from = 0;
                dequantize(last, h, scores_[from].data(), last.shape.outputs());
                for (const DenseLayer& dense : model_->head_) {
                    dense.run(scores_[from].data(), scores_[1 - from].data());
                    from = 1 - from;
                }
                std::copy_n(scores_[from].data(), outputs, out + static_cast<std::int64_t>(t) * outputs);
            }
        }

        std::shared_ptr<const ModelOf> model_;
        std::vector<State> states_;
        AlignedArray<Value> chunk_[2];
        AlignedArray<float> scores_[2];
        std::vector<float> present_;
        bool begun_ = false;
    };

    std::vector<std::unique_ptr<Layer>> layers_;
};

template <class Layer, class State, class Spec>
std::unique_ptr<Stream> ModelOf<Layer, State, Spec>::stream() const {
    return std::make_unique<StreamOf>(std::static_pointer_cast<const ModelOf>(shared_from_this()));
}

}  // namespace

std::shared_ptr<const Model> make_model(Isa isa, const std::vector<FloatLayerSpec>& layers,
                                        const std::vector<DenseSpec>& head) {
    return std::make_shared<ModelOf<FloatLayer, FloatLayerState, FloatLayerSpec>>(isa, layers, head);
}

std::shared_ptr<const Model> make_model(Isa isa, const std::vector<Int8LayerSpec>& layers,
                                        const std::vector<DenseSpec>& head) {
    return std::make_shared<ModelOf<Int8Layer, Int8LayerState, Int8LayerSpec>>(isa, layers, head);
}

}  // namespace deltarnn

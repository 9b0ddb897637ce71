// Streaming inference of a stack of delta layers and a dense head. No allocation and no lock in a step.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "deltarnn/float_layer.hpp"
#include "deltarnn/int8_layer.hpp"

namespace deltarnn {

// A dense layer after the recurrent ones: y = W h + b, then max(y, 0) if relu. weight (outputs, inputs), row-major;
// bias (outputs).
struct DenseSpec {
    int inputs, outputs;
    bool relu;
    const float *weight, *bias;
};

class DenseLayer {
  public:
    DenseLayer(const DenseSpec& spec, const FloatKernels& kernels);

    // x (inputs) → y (padded to row_padding)
    void run(const float* x, float* y) const;

    const int inputs, outputs;

  private:
    const FloatKernels& kernels_;
    const bool relu_;
    AlignedArray<float> columns_, bias_;
};

// The state of one sequence over a model's weights. Not for two threads at once; different streams are independent.
class Stream {
  public:
    virtual ~Stream() = default;
    virtual void reset() = 0;
    // Continues the sequence or begins another, for a caller that carries the state: h (layers, outputs()) and, for the
    // LSTM, c (layers, hidden); nullptr for zeros. If they equal the stream's present ones, the sequence continues with
    // its delta memories (true); any others begin one. held: continue, once begun, whatever is given. Event counts are
    // kept. std::invalid_argument if a value is NaN and the model fixed-point.
    virtual bool enter(const float* h, const float* c, bool held) = 0;
    // Copies out the present h and, for the LSTM, c, shaped as `enter` takes them.
    virtual void hidden(float* h, float* c) const = 0;
    // frames (count, input size) → out (count, output size). Returns how many frames ran: `count`, or fewer where a
    // fixed-point model meets a NaN, which it cannot represent; the state is then that before the frame with the NaN.
    virtual std::int64_t run(const float* frames, std::int64_t count, float* out) = 0;
    virtual std::vector<double> read(int layer, StateField field) const = 0;
    virtual Activity activity(int layer) const = 0;
};

// Immutable. Streams keep it alive.
class Model : public std::enable_shared_from_this<Model> {
  public:
    virtual ~Model() = default;
    virtual std::unique_ptr<Stream> stream() const = 0;
    virtual bool wide(int layer) const = 0;
    virtual std::size_t weight_bytes() const = 0;

    Isa isa() const { return isa_; }
    int input_size() const { return input_size_; }
    int output_size() const { return output_size_; }
    const std::vector<LayerShape>& shapes() const { return shapes_; }

  protected:
    Model(Isa isa, std::vector<LayerShape> shapes, const std::vector<DenseSpec>& head);

    const Isa isa_;
    std::vector<LayerShape> shapes_;
    std::vector<DenseLayer> head_;
    int input_size_, output_size_;
};

// At least one layer; each layer's input size is the outputs() of the one before (std::invalid_argument if not).
std::shared_ptr<const Model> make_model(Isa isa, const std::vector<FloatLayerSpec>& layers,
                                        const std::vector<DenseSpec>& head);
std::shared_ptr<const Model> make_model(Isa isa, const std::vector<Int8LayerSpec>& layers,
                                        const std::vector<DenseSpec>& head);

}  // namespace deltarnn

#include "deltarnn/package.hpp"

#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

namespace deltarnn {

namespace {

// "DRNN" and the version, in the byte order of the machines that the core runs on.
constexpr std::uint32_t magic = 0x4e4e5244, version = 1;

class Reader {
  public:
    explicit Reader(std::string_view bytes) : bytes_(bytes) {
        if (number<std::uint32_t>() != magic) throw std::invalid_argument("no package of DeltaRNN");
        if (number<std::uint32_t>() != version)
            throw std::invalid_argument("a package of another version of DeltaRNN: export it anew");
    }

    template <class T>
    T number() {
        T value;
        std::memcpy(&value, take(sizeof(T)), sizeof(T));
        return value;
    }

    bool flag() { return number<std::uint8_t>() != 0; }
    int integer() { return number<std::int32_t>(); }

    // As many as may still follow, each of at least one byte.
    std::size_t count() {
        const std::uint64_t value = number<std::uint64_t>();
        if (value > bytes_.size() - at_) throw std::invalid_argument("a package that ends early");
        return static_cast<std::size_t>(value);
    }

    template <class T>
    std::vector<T> numbers() {
        const std::size_t size = count();
        if (size > std::numeric_limits<std::size_t>::max() / sizeof(T))
            throw std::invalid_argument("a package that ends early");
        std::vector<T> values(size);
        const char* const from = take(size * sizeof(T));
        if (size > 0) std::memcpy(values.data(), from, size * sizeof(T));
        return values;
    }

    template <class T>
    std::vector<T> numbers(std::size_t expected) {
        std::vector<T> values = numbers<T>();
        if (values.size() != expected) throw std::invalid_argument("a package with an array of another size");
        return values;
    }

  private:
    const char* take(std::size_t size) {
        if (size > bytes_.size() - at_) throw std::invalid_argument("a package that ends early");
        const char* const here = bytes_.data() + at_;
        at_ += size;
        return here;
    }

    std::string_view bytes_;
    std::size_t at_ = 0;
};

FormatSpec format(Reader& from) {
    const int bits = from.integer(), fraction = from.integer();
    return {bits, fraction};
}

TableSpec table(Reader& from) {
    const std::int32_t first = from.integer();
    return {first, from.numbers<std::int32_t>()};
}

template <class Spec, class Weight, class Memory>
std::shared_ptr<const Model> finished(Reader& from, Spec spec, Isa isa) {
    const std::size_t hidden = spec.shape.hidden, rows = spec.shape.gates() * hidden, outputs = spec.shape.outputs();
    const auto weight_ih = from.numbers<Weight>(rows * spec.shape.input),
               weight_hh = from.numbers<Weight>(rows * outputs);
    const auto memory = from.numbers<Memory>(4 * hidden);
    const auto weight_hr = from.numbers<Weight>(spec.shape.projection > 0 ? outputs * hidden : 0);
    spec.weight_ih = weight_ih.data();
    spec.weight_hh = weight_hh.data();
    spec.memory = memory.data();
    spec.weight_hr = spec.shape.projection > 0 ? weight_hr.data() : nullptr;
    return make_model(isa, std::vector<Spec>{spec}, {});
}

std::shared_ptr<const Model> model(Reader& from, Isa isa) {
    const bool int8 = from.flag();
    LayerShape shape = {};
    shape.cell = from.flag() ? Cell::lstm : Cell::gru;
    shape.reset_before = from.flag();
    shape.input = from.integer();
    shape.hidden = from.integer();
    shape.projection = from.integer();
    check(shape);
    if (!int8) {
        FloatLayerSpec spec = {};
        spec.shape = shape;
        spec.bfloat16 = from.flag();
        spec.hard = from.flag();
        spec.relu = from.flag();
        spec.thx = from.number<float>();
        spec.thh = from.number<float>();
        return finished<FloatLayerSpec, float, float>(from, spec, isa);
    }
    Int8LayerSpec spec = {};
    spec.shape = shape;
    spec.input = format(from);
    spec.hidden = format(from);
    spec.cell = format(from);
    spec.address = format(from);
    spec.memory_fraction = from.integer();
    spec.gate_fraction = from.integer();
    spec.projection_fraction = from.integer();
    spec.floor = from.flag();
    spec.thx = from.integer();
    spec.thh = from.integer();
    spec.sigmoid = table(from);
    spec.tanh = table(from);
    check(spec);
    return finished<Int8LayerSpec, std::int8_t, std::int64_t>(from, spec, isa);
}

std::vector<std::shared_ptr<const Model>> models(Reader& from, Isa isa) {
    std::vector<std::shared_ptr<const Model>> found(from.count());
    for (auto& one : found) one = model(from, isa);
    return found;
}

std::vector<ProgramPackage::Place> places(Reader& from, std::size_t arena) {
    std::vector<ProgramPackage::Place> found(from.count());
    for (ProgramPackage::Place& place : found) {
        place.position = from.integer();
        place.sizes = from.numbers<std::int64_t>();
        std::int64_t left = static_cast<std::int64_t>(arena) - place.position;
        for (const std::int64_t size : place.sizes) {
            if (size < 1 || size > left) throw std::invalid_argument("an input or output lies outside of the arena");
            left /= size;
        }
        if (place.position < 0 || left < 1) throw std::invalid_argument("an input or output lies outside of the arena");
    }
    return found;
}

}  // namespace

std::int64_t ProgramPackage::Place::count() const {
    std::int64_t product = 1;
    for (const std::int64_t size : sizes) product *= size;
    return product;
}

ProgramPackage read_program(std::string_view bytes, Isa isa) {
    Reader from(bytes);
    ProgramPackage package;
    ProgramSpec spec;
    spec.arena = from.numbers<float>();
    spec.instructions.resize(from.count());
    for (Instruction& i : spec.instructions) {
        const int operation = from.integer();
        if (operation < 0 || operation > static_cast<int>(Operation::recurrent))
            throw std::invalid_argument("no such operation");
        i.operation = static_cast<Operation>(operation);
        for (std::int32_t* field : {&i.to, &i.a, &i.b, &i.n, &i.rows, &i.inner, &i.resource}) *field = from.integer();
        i.alpha = from.number<float>();
        i.beta = from.number<float>();
    }
    spec.lists.resize(from.count());
    for (std::vector<std::int32_t>& list : spec.lists) list = from.numbers<std::int32_t>();
    std::vector<std::vector<float>> weights(2 * from.count());
    for (std::size_t i = 0; i < weights.size(); i += 2) {
        const int inner = from.integer(), n = from.integer();
        if (inner < 1 || n < 1) throw std::invalid_argument("weights of no size");
        weights[i] = from.numbers<float>(static_cast<std::size_t>(inner) * n);
        weights[i + 1] = from.numbers<float>(n);
        spec.weights.push_back({inner, n, weights[i].data(), weights[i + 1].data()});
    }
    std::vector<int> layers(from.count());
    for (int& layer : layers) {
        RecurrentSpec recurrent = {};
        for (std::int32_t* field : {&recurrent.h, &recurrent.c, &recurrent.next_h, &recurrent.next_c})
            *field = from.integer();
        recurrent.held = from.flag();
        layer = from.integer();
        spec.recurrent.push_back(recurrent);
    }
    const auto every = models(from, isa);
    for (const int layer : layers) package.models.push_back(every.at(layer));
    package.inputs = places(from, spec.arena.size());
    package.outputs = places(from, spec.arena.size());
    package.fixed = from.numbers<std::int64_t>();
    package.program = std::make_shared<const Program>(spec, isa);
    return package;
}

SitePackage read_site(std::string_view bytes, Isa isa) {
    Reader from(bytes);
    SitePackage package = {};
    package.models = models(from, isa);
    for (std::size_t i = 0; i < package.models.size(); ++i) package.reverse.push_back(from.flag());
    for (bool* flag : {&package.batch_first, &package.is_cell, &package.held, &package.has_lengths, &package.has_h,
                       &package.has_c, &package.gives_y, &package.gives_h, &package.gives_c}) {
        *flag = from.flag();
    }
    if (package.models.empty()) throw std::invalid_argument("a package without a recurrent layer");
    if (package.is_cell && package.models.size() > 1) throw std::invalid_argument("a cell with several directions");
    const LayerShape& first = package.models.front()->shapes().front();
    for (const auto& model : package.models) {
        const LayerShape& shape = model->shapes().front();
        if (shape.input != first.input || shape.hidden != first.hidden || shape.outputs() != first.outputs())
            throw std::invalid_argument("directions of different sizes");
    }
    return package;
}

}  // namespace deltarnn

// Reads the serialised networks of the operators for ONNX Runtime, which deltarnn/onnx/package.py writes.
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "deltarnn/engine.hpp"
#include "deltarnn/program.hpp"

namespace deltarnn {

// A whole network. models: one for each recurrent resource. inputs, outputs: positions in the arena, and sizes. fixed:
// the values that the further inputs, integers, must have.
struct ProgramPackage {
    struct Place {
        std::int32_t position;
        std::vector<std::int64_t> sizes;

        std::int64_t count() const;
    };
    std::shared_ptr<const Program> program;
    std::vector<std::shared_ptr<const Model>> models;
    std::vector<Place> inputs, outputs;
    std::vector<std::int64_t> fixed;
};

// One recurrent operator, with a model for each direction of time (reverse: backwards). Its input x is a sequence
// (T, B, I), or (B, T, I) if batch_first, or one step (B, I) if is_cell. has_…: the inputs that follow x; gives_…: the
// outputs.
struct SitePackage {
    std::vector<std::shared_ptr<const Model>> models;
    std::vector<bool> reverse;
    bool batch_first, is_cell, held;
    bool has_lengths, has_h, has_c, gives_y, gives_h, gives_c;
};

// std::invalid_argument if the bytes are no such package, end early, or contradict themselves.
ProgramPackage read_program(std::string_view bytes, Isa isa);
SitePackage read_site(std::string_view bytes, Isa isa);

}  // namespace deltarnn

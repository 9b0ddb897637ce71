// Networks as bytes that deltarnn/onnx/package.py writes: what the operators of ONNX Runtime run, without Python.
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "deltarnn/engine.hpp"
#include "deltarnn/program.hpp"

namespace deltarnn {

// Of a program. models: of each recurrent resource. inputs, outputs: where in the arena, and the sizes. fixed: values
// that further inputs, whole numbers, must have.
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

// Of one application of recurrent layers, one model and order of time per direction: a sequence (T, B, I), or (B, T,
// I), or a cell (B, I). Which of lengths, h, c the inputs are, after x; and which of y, h, c the outputs.
struct SitePackage {
    std::vector<std::shared_ptr<const Model>> models;
    std::vector<bool> reverse;
    bool batch_first, is_cell, held;
    bool has_lengths, has_h, has_c, gives_y, gives_h, gives_c;
};

// std::invalid_argument for bytes that are none, that end early, or contradict themselves.
ProgramPackage read_program(std::string_view bytes, Isa isa);
SitePackage read_site(std::string_view bytes, Isa isa);

}  // namespace deltarnn

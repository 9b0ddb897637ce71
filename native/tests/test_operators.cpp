// The operators for ONNX Runtime in a stand-in for it, on cases that tests/onnx/test_operator_sanitizers.py writes:
// their outputs, calls that do not fit, and packages with damage, which must be refused or computed without a step
// outside of memory. Built with sanitizers there. The exit status counts what differs.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "deltarnn/package.hpp"
#include "ort_stand_in.hpp"

using namespace deltarnn;

namespace {

int failures = 0;

void expect(bool ok, const char* name, const std::string& what) {
    if (ok) return;
    ++failures;
    std::printf("%s: %s\n", name, what.c_str());
}

// One node of a session; what it says when it fails.
class Node {
  public:
    Node(const ort::CustomOp& op, const std::string& data) : op_(op) {
        const ort::KernelInfo info = {data};
        take(op.create_kernel_v2(&op, functions.data(), &info, &kernel_));
    }
    ~Node() {
        if (kernel_ != nullptr) op_.destroy(kernel_);
    }
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    bool made() const { return kernel_ != nullptr; }
    const std::string& message() const { return message_; }

    bool run(const std::vector<ort::Value>& inputs, std::size_t outputs, std::vector<ort::Value>& results) {
        ort::KernelContext context = {inputs, std::vector<ort::Value>(outputs)};
        const bool done = take(op_.compute_v2(kernel_, &context));
        results = std::move(context.outputs);
        return done;
    }

  private:
    bool take(ort::Status* status) {
        if (status == nullptr) return true;
        message_ = status->message;
        delete status;
        return false;
    }

    const ort::CustomOp& op_;
    void* kernel_ = nullptr;
    std::string message_;
};

struct Call {
    std::vector<ort::Value> inputs, outputs;
};

// As the test writes it: operator, package, calls; numbers in 64 bits.
struct Case {
    explicit Case(const char* path) {
        std::ifstream file(path, std::ios::binary);
        const std::vector<char> content((std::istreambuf_iterator<char>(file)), {});
        const char* at = content.data();
        const auto number = [&] {
            std::int64_t value;
            std::memcpy(&value, at, sizeof(value));
            at += sizeof(value);
            return value;
        };
        const auto values = [&] {
            std::vector<ort::Value> found(number());
            for (ort::Value& value : found) {
                const auto type = static_cast<ort::ElementType>(number());
                std::vector<std::int64_t> sizes(number());
                for (std::int64_t& size : sizes) size = number();
                value = value_of(type, sizes);
                std::memcpy(value.data.data(), at, value.data.size());
                at += value.data.size();
            }
            return found;
        };
        is_program = number() != 0;
        package.resize(number());
        std::memcpy(package.data(), at, package.size());
        at += package.size();
        calls.resize(number());
        for (Call& call : calls) {
            call.inputs = values();
            call.outputs = values();
        }
    }

    bool is_program;
    std::string package;
    std::vector<Call> calls;
};

bool close(const ort::Value& actual, const ort::Value& expected) {
    if (actual.sizes != expected.sizes) return false;
    for (std::size_t at = 0; at < expected.data.size(); at += sizeof(float)) {
        float a, b;
        std::memcpy(&a, actual.data.data() + at, sizeof(float));
        std::memcpy(&b, expected.data.data() + at, sizeof(float));
        if (!(std::fabs(a - b) <= 1e-5f * (1.0f + std::fabs(b))) && !(a != a && b != b) && a != b) return false;
    }
    return true;
}

void computes(const char* name, const ort::CustomOp& op, const Case& one) {
    Node node(op, one.package);
    expect(node.made(), name, node.message());
    if (!node.made()) return;
    for (std::size_t i = 0; i < one.calls.size(); ++i) {
        const Call& call = one.calls[i];
        std::vector<ort::Value> results;
        const bool done = node.run(call.inputs, call.outputs.size(), results);
        expect(done, name, "call " + std::to_string(i) + ": " + node.message());
        for (std::size_t k = 0; done && k < results.size(); ++k) {
            expect(close(results[k], call.outputs[k]), name,
                   "output " + std::to_string(k) + " of call " + std::to_string(i) + " differs");
        }
    }
}

// Inputs of another type or size, or too few: an error each. Values beyond all bounds: an error or none.
void refuses(const char* name, const ort::CustomOp& op, const Case& one) {
    Node node(op, one.package);
    const Call& call = one.calls.front();
    std::vector<ort::Value> results;
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
        std::vector<ort::Value> inputs = call.inputs;
        inputs[i] = value_of(inputs[i].type == ort::float32 ? ort::int64 : ort::float32, inputs[i].sizes);
        expect(!node.run(inputs, call.outputs.size(), results), name, "an input of another type is taken");
        std::vector<std::int64_t> sizes = call.inputs[i].sizes;
        if (sizes.empty()) sizes.push_back(1);
        ++sizes.back();
        inputs[i] = value_of(call.inputs[i].type, sizes);
        expect(!node.run(inputs, call.outputs.size(), results), name, "an input of another size is taken");
        inputs.resize(i);
        expect(!node.run(inputs, call.outputs.size(), results), name, "a missing input is not missed");
    }
    for (const float extreme :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e30f, 1e30f}) {
        std::vector<ort::Value> inputs = call.inputs;
        for (ort::Value& value : inputs) {
            if (value.type != ort::float32) continue;
            for (std::size_t at = 0; at < value.data.size(); at += sizeof(float))
                std::memcpy(value.data.data() + at, &extreme, sizeof(float));
        }
        node.run(inputs, call.outputs.size(), results);
    }
}

// How many damaged packages were run.
int survives(const ort::CustomOp& op, const Case& one, std::mt19937& random) {
    int run = 0;
    for (int round = 0; round < 1000; ++round) {
        std::string package = one.package;
        const std::size_t at = random() % package.size();
        if (round % 8 == 0) {
            package.resize(at);
        } else {
            const std::array<std::int32_t, 8> numbers = {
                0, 1, -1, 2, 7, 1 << 20, std::numeric_limits<std::int32_t>::max(), static_cast<std::int32_t>(random())};
            const std::int32_t number = numbers[random() % numbers.size()];
            std::memcpy(package.data() + at, &number, std::min<std::size_t>(round % 2 ? 1 : 4, package.size() - at));
        }
        Node node(op, package);
        if (!node.made()) continue;
        ++run;
        std::vector<ort::Value> results;
        for (const Call& call : one.calls) node.run(call.inputs, call.outputs.size(), results);
    }
    return run;
}

}  // namespace

int main(int count, char** paths) {
    const std::vector<const ort::CustomOp*> operators = registered();
    expect(!operators.empty(), "registration", "fails");
    if (operators.empty()) return 1;
    std::mt19937 random(1);
    std::set<Operation> used;
    int damaged = 0;
    for (int i = 1; i < count; ++i) {
        const Case one(paths[i]);
        const ort::CustomOp* op = nullptr;
        for (const ort::CustomOp* candidate : operators) {
            if (candidate->name(candidate) == std::string(one.is_program ? "Program" : "Recurrent")) op = candidate;
        }
        if (one.is_program) {
            const ProgramPackage package = read_program(one.package, active_isa());
            for (const Instruction& instruction : package.program->instructions) used.insert(instruction.operation);
        }
        computes(paths[i], *op, one);
        refuses(paths[i], *op, one);
        damaged += survives(*op, one, random);
    }
    std::printf("%s: %d cases, %zu of %d operations, %d packages with damage ran, %d differ\n", isa_name(active_isa()),
                count - 1, used.size(), static_cast<int>(Operation::recurrent) + 1, damaged, failures);
    return failures > 0;
}

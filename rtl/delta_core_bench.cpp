// Ticks the clock of delta_core_bench until it is finished. +trace=FILE writes a .vcd file, where compiled in.
#include <memory>
#include <string>

#include "Vdelta_core_bench.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

int main(int argc, char** argv) {
    const auto context = std::make_unique<VerilatedContext>();
    context->commandArgs(argc, argv);
#if VM_TRACE
    context->traceEverOn(true);
#endif
    const auto bench = std::make_unique<Vdelta_core_bench>(context.get());
#if VM_TRACE
    VerilatedVcdC trace;
    bench->trace(&trace, 99);
    const std::string named = context->commandArgsPlusMatch("trace=");
    trace.open(named.substr(std::string("+trace=").size()).c_str());
#endif
    while (!context->gotFinish()) {
        bench->clock = !bench->clock;
        bench->eval();
#if VM_TRACE
        trace.dump(context->time());
#endif
        context->timeInc(1);
    }
    bench->final();
    return 0;
}

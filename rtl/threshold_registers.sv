// A threshold for the input and one for the hidden state of every recurrent layer: registers 2 l and 2 l + 1, numbers
// of the activation format, not negative. They start, and after a reset start again, at the model's own.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module threshold_registers (
    input logic clock,
    input logic reset,
    input logic write,
    input logic [THRESHOLD_INDEX_BITS-1:0] index,
    input logic [THRESHOLD_BITS-1:0] value,
    output logic [THRESHOLDS*THRESHOLD_BITS-1:0] thresholds
);
  always_ff @(posedge clock) begin
    if (reset) begin
      thresholds <= MODEL_THRESHOLDS;
    end else if (write) begin
      for (int register = 0; register < THRESHOLDS; register++) begin
        if (index == THRESHOLD_INDEX_BITS'(register)) thresholds[register*THRESHOLD_BITS+:THRESHOLD_BITS] <= value;
      end
    end
  end
endmodule

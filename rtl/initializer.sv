// What a reset sets off: all signals, held values and states are cleared, word by word, and the accumulators start at
// the biases, row by row.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module initializer (
    input logic clock,
    input logic reset,

    output logic clearing,
    output logic [CLEAR_BITS-1:0] clear_word,

    output logic [LANES-1:0] preset,
    output logic [ACC_ADDRESS_BITS-1:0] preset_address,
    output logic [ACC_BITS-1:0] preset_value
);
  logic [ACC_BITS-1:0] biases[ACC_WORDS*LANES];
  logic presetting;
  logic [CLEAR_BITS-1:0] preset_word;

  initial $readmemh("biases.hex", biases);

  always_ff @(posedge clock) begin
    preset_word <= clear_word;
    if (reset) begin
      clearing <= 1'b1;
      presetting <= 1'b0;
      clear_word <= '0;
    end else begin
      presetting <= clearing;
      if (clearing) begin
        clear_word <= clear_word + 1'b1;
        if (clear_word == CLEAR_BITS'(CLEAR_WORDS - 1)) clearing <= 1'b0;
      end
    end
  end

  always_ff @(posedge clock) preset_value <= biases[BIAS_BITS'(clear_word)];

  assign preset_address = ACC_ADDRESS_BITS'(preset_word >> LANE_SHIFT);

  generate
    for (genvar lane = 0; lane < LANES; lane++) begin : gen_lane
      assign preset[lane] = presetting && preset_word < CLEAR_BITS'(ACC_WORDS * LANES)
          && (LANES == 1 || preset_word[LANE_BITS-1:0] == LANE_BITS'(lane));
    end
  endgenerate
endmodule

// One table of the sigmoid or tanh: an entry for each number from FIRST on; numbers beyond either end read the end.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module activation_table #(
    parameter int FIRST = -128,
    parameter int ENTRIES = 256,
    parameter int ADDRESS_BITS = 8,
    parameter IMAGE = "sigmoid.hex"
) (
    input logic clock,
    input logic signed [A_BITS-1:0] number,
    output logic signed [N_BITS-1:0] entry
);
  logic [N_BITS-1:0] entries[ENTRIES];
  logic [ADDRESS_BITS-1:0] address;

  initial $readmemh(IMAGE, entries);

  generate
    if (ENTRIES == 2 ** A_BITS) begin : gen_whole
      // FIRST is the most negative number: the sign bit turned over is the distance from it.
      assign address = {~number[A_BITS-1], number[A_BITS-2:0]};
    end else begin : gen_trimmed
      logic signed [A_BITS+1:0] distance;
      assign distance = (A_BITS + 2)'(number) - (A_BITS + 2)'(FIRST);
      always_comb begin
        if (distance < 0) address = '0;
        else if (distance >= (A_BITS + 2)'(ENTRIES)) address = ADDRESS_BITS'(ENTRIES - 1);
        else address = distance[ADDRESS_BITS-1:0];
      end
    end
  endgenerate

  always_ff @(posedge clock) entry <= entries[address];
endmodule

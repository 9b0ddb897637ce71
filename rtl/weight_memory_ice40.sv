// The weights in the single-port memories of an iCE40 UltraPlus, 16 bits wide and 16384 words deep each. They start
// undefined: the core's weight stream fills them after configuration.
module weight_memory #(
    parameter int WORD_BITS = 64,
    /* verilator lint_off UNUSEDPARAM */
    parameter int WORDS = 16,
    parameter int ADDRESS_BITS = 4,
    parameter IMAGE = "weights.hex"
    /* verilator lint_on UNUSEDPARAM */
) (
    input logic clock,
    input logic [ADDRESS_BITS-1:0] read_address,
    output logic [WORD_BITS-1:0] read_data,
    input logic write,
    input logic [ADDRESS_BITS-1:0] write_address,
    input logic [WORD_BITS-1:0] write_data
);
  localparam int BLOCKS = (WORD_BITS + 15) / 16;

  logic [13:0] address;
  logic [BLOCKS*16-1:0] wide_in;
  logic [BLOCKS*16-1:0] wide_out;

  assign address   = 14'(write ? write_address : read_address);
  assign wide_in   = (BLOCKS * 16)'(write_data);
  assign read_data = wide_out[WORD_BITS-1:0];

  generate
    for (genvar block = 0; block < BLOCKS; block++) begin : gen_block
      SB_SPRAM256KA memory (
          .CLOCK(clock),
          .ADDRESS(address),
          .DATAIN(wide_in[block*16+:16]),
          .MASKWREN(4'b1111),
          .WREN(write),
          .CHIPSELECT(1'b1),
          .STANDBY(1'b0),
          .SLEEP(1'b0),
          .POWEROFF(1'b1),
          .DATAOUT(wide_out[block*16+:16])
      );
    end
  endgenerate

  logic unused;
  assign unused = &{1'b0, wide_out};
endmodule

// New weights by a stream, one weight a beat: words in address order, in a word the weight of lane 0 first, TLAST on
// the last weight of all. For memories that start undefined, and for changing the model's weights.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module weight_loader (
    input logic clock,
    input logic reset,
    input logic blocked,

    input logic [AXIS_WEIGHT_BITS-1:0] w_axis_tdata,
    input logic w_axis_tvalid,
    output logic w_axis_tready,
    input logic w_axis_tlast,

    output logic write,
    output logic [WEIGHT_BITS-1:0] write_address,
    output logic [LANES*ENTRY_BITS-1:0] write_data
);
  logic beat;
  logic [LANE_BITS-1:0] lane;
  logic [WEIGHT_BITS-1:0] address;
  logic last_lane;

  assign w_axis_tready = !blocked;
  assign beat = w_axis_tvalid && w_axis_tready;
  assign last_lane = lane == LANE_BITS'(LANES - 1);

  generate
    if (AXIS_WEIGHT_BITS > ENTRY_BITS) begin : gen_padding
      logic unused;
      assign unused = &{1'b0, w_axis_tdata[AXIS_WEIGHT_BITS-1:ENTRY_BITS]};
    end
    if (LANES > 1) begin : gen_shift
      always_ff @(posedge clock) begin
        if (beat) write_data <= {w_axis_tdata[ENTRY_BITS-1:0], write_data[LANES*ENTRY_BITS-1:ENTRY_BITS]};
      end
    end else begin : gen_single
      always_ff @(posedge clock) begin
        if (beat) write_data <= w_axis_tdata[ENTRY_BITS-1:0];
      end
    end
  endgenerate

  always_ff @(posedge clock) begin
    write <= 1'b0;
    write_address <= address;
    if (reset) begin
      lane <= '0;
      address <= '0;
    end else if (beat) begin
      write <= last_lane;
      lane <= last_lane || w_axis_tlast ? '0 : lane + 1'b1;
      if (w_axis_tlast) address <= '0;
      else if (last_lane) address <= address + 1'b1;
    end
  end
endmodule

// The input stream: one value a beat, TLAST on the last of a frame. Values go into one of two halves of the frame
// buffer while the encoder reads the other. A frame whose TLAST is early or late is dropped whole, and reported.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module frame_input (
    input logic clock,
    input logic reset,

    input logic [AXIS_IN_BITS-1:0] s_axis_tdata,
    input logic s_axis_tvalid,
    output logic s_axis_tready,
    input logic s_axis_tlast,
    output logic frame_error,

    // Held back while the signal memory is being cleared, or takes what the activation writes.
    input logic blocked,
    output logic write,
    output logic [INPUT_INDEX_BITS:0] write_index,
    output logic [A_BITS-1:0] write_value,

    // The half that holds a whole frame, until the encoder has read it.
    output logic frame_ready,
    output logic frame_half,
    input logic frame_taken
);
  logic [1:0] filled;
  logic filling_half;
  logic [INPUT_INDEX_BITS-1:0] index;
  logic overlong;
  logic beat;
  logic last_value;

  assign s_axis_tready = !blocked && !filled[filling_half];
  assign beat = s_axis_tvalid && s_axis_tready;
  assign last_value = index == INPUT_INDEX_BITS'(INPUTS - 1);

  assign write = beat && !overlong;
  assign write_index = {filling_half, index};
  assign write_value = s_axis_tdata[A_BITS-1:0];

  assign frame_ready = filled[frame_half];

  generate
    if (AXIS_IN_BITS > A_BITS) begin : gen_padding
      logic unused;
      assign unused = &{1'b0, s_axis_tdata[AXIS_IN_BITS-1:A_BITS]};
    end
  endgenerate

  always_ff @(posedge clock) begin
    frame_error <= 1'b0;
    if (reset) begin
      filled <= '0;
      filling_half <= 1'b0;
      frame_half <= 1'b0;
      index <= '0;
      overlong <= 1'b0;
    end else begin
      if (beat) begin
        if (s_axis_tlast) begin
          index <= '0;
          overlong <= 1'b0;
          if (last_value && !overlong) begin
            filled[filling_half] <= 1'b1;
            filling_half <= !filling_half;
          end else begin
            frame_error <= 1'b1;
          end
        end else if (last_value) begin
          overlong <= 1'b1;
        end else begin
          index <= index + 1'b1;
        end
      end
      if (frame_taken) begin
        filled[frame_half] <= 1'b0;
        frame_half <= !frame_half;
      end
    end
  end
endmodule

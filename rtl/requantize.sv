// A value brought to a narrower format: divided by 2^SHIFT, rounded (to NEAREST, ties to even, or down), saturated.
// A negative SHIFT multiplies, exactly.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module requantize #(
    parameter int IN_BITS = 24,
    parameter int SHIFT = 7,
    parameter int OUT_BITS = 8
) (
    input logic signed [IN_BITS-1:0] value,
    output logic signed [OUT_BITS-1:0] result
);
  localparam int WIDE = IN_BITS > SHIFT + 1 ? IN_BITS : SHIFT + 2;
  localparam int ROUNDED_BITS = SHIFT > 0 ? WIDE - SHIFT + 1 : IN_BITS - SHIFT;

  logic signed [ROUNDED_BITS-1:0] rounded;

  generate
    if (SHIFT > 0) begin : gen_right
      logic signed [WIDE-1:0] wide;
      logic up;
      assign wide = WIDE'(value);
      if (!NEAREST) begin : gen_floor
        logic unused;
        assign up = 1'b0;
        assign unused = &{1'b0, wide[SHIFT-1:0]};
      end else if (SHIFT > 1) begin : gen_nearest
        // More than half a step, or half and the quotient odd.
        assign up = wide[SHIFT-1] & (wide[SHIFT] | (|wide[SHIFT-2:0]));
      end else begin : gen_nearest_one
        assign up = wide[0] & wide[1];
      end
      assign rounded = ROUNDED_BITS'($signed(wide[WIDE-1:SHIFT])) + ROUNDED_BITS'($signed({1'b0, up}));
    end else begin : gen_left
      assign rounded = ROUNDED_BITS'(value) <<< (-SHIFT);
    end

    if (ROUNDED_BITS > OUT_BITS) begin : gen_saturate
      logic fits;
      assign fits = (&rounded[ROUNDED_BITS-1:OUT_BITS-1]) | ~(|rounded[ROUNDED_BITS-1:OUT_BITS-1]);
      assign result = fits ? rounded[OUT_BITS-1:0]
          : {rounded[ROUNDED_BITS-1], {(OUT_BITS - 1) {~rounded[ROUNDED_BITS-1]}}};
    end else begin : gen_extend
      assign result = OUT_BITS'(rounded);
    end
  endgenerate
endmodule

// One lane: a multiplier, and the accumulators of the rows dealt to it. A product enters its accumulator two clocks
// after its weight was asked for; the activation reads the accumulators of finished layers through a port of its own.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module product_lane (
    input logic clock,
    input logic reset,

    input logic valid,
    input logic signed [DELTA_BITS-1:0] delta,
    input logic signed [W_BITS-1:0] weight,
    input logic [ACC_ADDRESS_BITS-1:0] address,

    input logic preset,
    input logic [ACC_ADDRESS_BITS-1:0] preset_address,
    input logic signed [ACC_BITS-1:0] preset_value,

    input logic [ACC_ADDRESS_BITS-1:0] read_address,
    output logic signed [ACC_BITS-1:0] read_data
);
  (* no_rw_check *) logic [ACC_BITS-1:0] accumulators[ACC_WORDS];

  logic summing;
  logic [ACC_ADDRESS_BITS-1:0] sum_address;
  logic signed [DELTA_BITS+W_BITS-1:0] product;
  logic signed [ACC_BITS-1:0] stored;
  logic signed [ACC_BITS-1:0] partial;
  logic signed [ACC_BITS-1:0] sum;

  always_ff @(posedge clock) begin
    if (reset) summing <= 1'b0;
    else summing <= valid;
  end

  always_ff @(posedge clock) begin
    product <= (DELTA_BITS + W_BITS)'(delta) * (DELTA_BITS + W_BITS)'(weight);
    sum_address <= address;
  end

  // Sums wrap on the way and are right at the end: what a row adds up to is within ACC_BITS whatever came before.
  assign sum = partial + ACC_BITS'(product);

  // Where a column can have a single group, two clocks in a row may meet the same accumulator.
  generate
    if (FORWARD) begin : gen_forward
      logic again;
      logic signed [ACC_BITS-1:0] last;
      always_ff @(posedge clock) begin
        again <= summing && sum_address == address;
        last  <= sum;
      end
      assign partial = again ? last : stored;
    end else begin : gen_stored
      assign partial = stored;
    end
  endgenerate

  always_ff @(posedge clock) begin
    if (preset) accumulators[preset_address] <= preset_value;
    else if (summing) accumulators[sum_address] <= sum;
  end

  always_ff @(posedge clock) begin
    stored <= accumulators[address];
    read_data <= accumulators[read_address];
  end

  // Accumulators may be narrower than a product.
  logic unused;
  assign unused = &{1'b0, product};
endmodule

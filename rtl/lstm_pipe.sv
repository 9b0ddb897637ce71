// The LSTM of one hidden unit after another, four clocks each. The accumulators arrive in the order f, i, g, o; the
// ticks count the clocks since a unit's first one was asked for. One multiplier and two tables serve it all:
//   c = A(f c + i g),   h = A(o N(tanh(c)))
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module lstm_pipe (
    input logic clock,
    input logic [PIPE_TICKS:0] tick,
    input logic signed [ACC_BITS-1:0] value,
    input logic signed [A_BITS-1:0] state,
    output logic signed [A_BITS-1:0] hidden,
    output logic signed [A_BITS-1:0] next_state
);
  // f c and i g are brought to the larger number of fraction bits.
  localparam int SUM_FRACTION = A_FRACTION > N_FRACTION ? A_FRACTION : N_FRACTION;
  localparam int LEFT_BITS = A_BITS > N_BITS ? A_BITS : N_BITS;
  localparam int PRODUCT_BITS = LEFT_BITS + N_BITS;
  localparam int SUM_BITS = PRODUCT_BITS + SUM_FRACTION - (A_FRACTION < N_FRACTION ? A_FRACTION : N_FRACTION) + 1;

  logic signed [A_BITS-1:0] number;
  logic signed [N_BITS-1:0] sigmoid;
  logic signed [N_BITS-1:0] tangent;
  logic signed [N_BITS-1:0] input_gate;
  logic signed [N_BITS-1:0] output_gate;
  logic signed [LEFT_BITS-1:0] left;
  logic signed [N_BITS-1:0] right;
  logic signed [PRODUCT_BITS-1:0] product;
  logic signed [PRODUCT_BITS-1:0] kept;
  logic signed [SUM_BITS-1:0] sum;
  logic signed [A_BITS-1:0] cell_value;
  logic signed [A_BITS-1:0] squashed;

  requantize #(ACC_BITS, W_FRACTION, A_BITS) round_number (.value(value), .result(number));
  activation_table #(SIGMOID_FIRST, SIGMOID_ENTRIES, SIGMOID_BITS, "sigmoid.hex") sigmoid_table (
      .clock (clock),
      .number(number),
      .entry (sigmoid)
  );
  activation_table #(TANH_FIRST, TANH_ENTRIES, TANH_BITS, "tanh.hex") tanh_table (
      .clock (clock),
      .number(tick[7] ? cell_value : number),
      .entry (tangent)
  );

  always_ff @(posedge clock) begin
    if (tick[4]) input_gate <= sigmoid;
    if (tick[6]) output_gate <= sigmoid;
  end

  // f c, then i g, then o tanh(c).
  always_comb begin
    left  = LEFT_BITS'(state);
    right = sigmoid;
    if (tick[5]) begin
      left  = LEFT_BITS'(tangent);
      right = input_gate;
    end else if (tick[8]) begin
      left  = LEFT_BITS'(tangent);
      right = output_gate;
    end
  end

  always_ff @(posedge clock) begin
    product <= PRODUCT_BITS'(left) * PRODUCT_BITS'(right);
    if (tick[4]) kept <= product;
    sum <= (SUM_BITS'(kept) <<< (SUM_FRACTION - A_FRACTION)) + (SUM_BITS'(product) <<< (SUM_FRACTION - N_FRACTION));
  end

  requantize #(SUM_BITS, N_FRACTION + SUM_FRACTION - A_FRACTION, A_BITS) round_cell (
      .value (sum),
      .result(cell_value)
  );
  requantize #(PRODUCT_BITS, 2 * N_FRACTION - A_FRACTION, A_BITS) round_hidden (
      .value (product),
      .result(squashed)
  );

  always_ff @(posedge clock) begin
    if (tick[7]) next_state <= cell_value;
    if (tick[9]) hidden <= squashed;
  end

  logic unused;
  assign unused = &{1'b0, tick};
endmodule

// The GRU of one hidden unit after another, four clocks each. The accumulators arrive in the order r, z, nh, nx; the
// ticks count the clocks since a unit's first one was asked for. One multiplier and two tables serve it all:
//   h = A(A((1 - z) n) + A(z h)),   n = N(tanh(A(M_nx + r A(M_nh))))
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module gru_pipe (
    input logic clock,
    input logic [PIPE_TICKS:0] tick,
    input logic signed [ACC_BITS-1:0] value,
    input logic signed [A_BITS-1:0] state,
    output logic signed [A_BITS-1:0] hidden,
    output logic signed [A_BITS-1:0] next_state
);
  // Terms of n's argument are brought to the larger number of fraction bits.
  localparam int SUM_FRACTION = W_FRACTION > N_FRACTION ? W_FRACTION : N_FRACTION;
  localparam int X_BITS = ACC_BITS + SUM_FRACTION - W_FRACTION;
  localparam int H_BITS = A_BITS + N_BITS + SUM_FRACTION - N_FRACTION;
  localparam int SUM_BITS = (X_BITS > H_BITS ? X_BITS : H_BITS) + 1;
  localparam int LEFT_BITS = A_BITS > N_BITS ? A_BITS : N_BITS;
  localparam int PRODUCT_BITS = LEFT_BITS + N_BITS + 1;

  logic signed [A_BITS-1:0] number;
  logic signed [N_BITS-1:0] sigmoid;
  logic signed [N_BITS-1:0] candidate;
  logic signed [N_BITS-1:0] reset_gate;
  logic signed [N_BITS-1:0] update_gate;
  logic signed [LEFT_BITS-1:0] left;
  logic signed [N_BITS:0] right;
  logic signed [PRODUCT_BITS-1:0] product;
  logic signed [SUM_BITS-1:0] sum;
  logic signed [A_BITS-1:0] argument;
  logic signed [A_BITS-1:0] fresh;
  logic signed [A_BITS-1:0] scaled;
  logic signed [A_BITS-1:0] kept;
  logic signed [A_BITS:0] total;

  requantize #(ACC_BITS, W_FRACTION, A_BITS) round_number (.value(value), .result(number));
  activation_table #(SIGMOID_FIRST, SIGMOID_ENTRIES, SIGMOID_BITS, "sigmoid.hex") sigmoid_table (
      .clock (clock),
      .number(number),
      .entry (sigmoid)
  );
  activation_table #(TANH_FIRST, TANH_ENTRIES, TANH_BITS, "tanh.hex") tanh_table (
      .clock (clock),
      .number(argument),
      .entry (candidate)
  );

  always_ff @(posedge clock) begin
    if (tick[3]) reset_gate <= sigmoid;
    if (tick[4]) update_gate <= sigmoid;
  end

  // r A(M_nh), then z h, then (1 - z) n.
  always_comb begin
    left  = LEFT_BITS'(number);
    right = (N_BITS + 1)'(reset_gate);
    if (tick[5]) begin
      left  = LEFT_BITS'(state);
      right = (N_BITS + 1)'(update_gate);
    end else if (tick[7]) begin
      left  = LEFT_BITS'(candidate);
      right = (N_BITS + 1)'(2 ** N_FRACTION) - (N_BITS + 1)'(update_gate);
    end
  end

  always_ff @(posedge clock) begin
    product <= PRODUCT_BITS'(left) * PRODUCT_BITS'(right);
    sum <= (SUM_BITS'(value) <<< (SUM_FRACTION - W_FRACTION))
        + (SUM_BITS'(product) <<< (SUM_FRACTION - N_FRACTION));
  end

  requantize #(SUM_BITS, SUM_FRACTION, A_BITS) round_argument (.value(sum), .result(argument));
  requantize #(PRODUCT_BITS, N_FRACTION, A_BITS) round_kept (.value(product), .result(scaled));
  requantize #(PRODUCT_BITS, 2 * N_FRACTION - A_FRACTION, A_BITS) round_fresh (
      .value (product),
      .result(fresh)
  );
  assign total = (A_BITS + 1)'(fresh) + (A_BITS + 1)'(kept);

  always_ff @(posedge clock) begin
    if (tick[6]) kept <= scaled;
    if (tick[8])
      hidden <= total[A_BITS] == total[A_BITS-1] ? total[A_BITS-1:0] : {total[A_BITS], {(A_BITS - 1) {~total[A_BITS]}}};
  end

  assign next_state = hidden;

  logic unused;
  assign unused = &{1'b0, tick};
endmodule

// The delta encoder. A step is a list of parts: of each layer the hidden state, then the input. A part is read a word
// of ENCODER_WIDTH values a clock; values that moved by their threshold or more become events, one a clock, and
// replace what is held of them. Words without an event take their one clock and no more.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module delta_encoder (
    input logic clock,
    input logic reset,
    input logic start,
    input logic frame_half,
    output logic frame_taken,
    input logic [THRESHOLDS*THRESHOLD_BITS-1:0] thresholds,

    // How far the activation is: the layer it works on, and the words it has written of it.
    input logic [LAYER_BITS-1:0] active_layer,
    input logic [SIGNAL_BITS-1:0] active_words,

    output logic read,
    output logic [SIGNAL_BITS-1:0] signal_address,
    input logic [ENCODER_WIDTH*A_BITS-1:0] signal_data,
    output logic [HELD_BITS-1:0] held_address,
    input logic [ENCODER_WIDTH*A_BITS-1:0] held_data,
    output logic [ENCODER_WIDTH-1:0] hold,
    output logic [HELD_BITS-1:0] hold_address,

    output logic push,
    output logic [EVENT_BITS-1:0] event_data,
    input logic full
);
  // Word being asked for.
  logic scanning;
  logic half;
  logic [PART_BITS-1:0] part;
  logic [SIGNAL_BITS-1:0] word;
  logic [WEIGHT_BITS-1:0] column;
  logic [HELD_BITS-1:0] held_word;
  logic [LAYER_BITS-1:0] layer;
  logic [SIGNAL_BITS-1:0] part_words;
  logic last_word;
  logic last_part;
  logic available;

  // Word being compared.
  logic comparing;
  logic [PART_BITS-1:0] compared_part;
  logic [WEIGHT_BITS-1:0] compared_column;
  logic [HELD_BITS-1:0] compared_held;
  logic compared_end;
  logic [THRESHOLD_INDEX_BITS-1:0] threshold_index;
  logic [THRESHOLD_BITS-1:0] threshold;
  logic [ENCODER_WIDTH-1:0] fires;
  logic [ENCODER_WIDTH*DELTA_BITS-1:0] compared_deltas;
  logic advance;

  // Events of a word being pushed: a bit for each value, and one for the end of the layer, which goes last.
  logic [ENCODER_WIDTH:0] waiting;
  logic [ENCODER_WIDTH*DELTA_BITS-1:0] deltas;
  logic [PART_BITS-1:0] pushed_part;
  logic [WEIGHT_BITS-1:0] pushed_column;
  logic [ENCODER_WIDTH:0] next;
  logic [DELTA_BITS-1:0] pushed_delta;
  logic [WEIGHT_BITS-1:0] pushed_address;

  assign layer = core_config::PART_LAYER[part*LAYER_BITS+:LAYER_BITS];
  assign part_words = core_config::PART_WORDS[part*SIGNAL_BITS+:SIGNAL_BITS];
  assign last_word = word == part_words - 1'b1;
  assign last_part = part == PART_BITS'(PARTS - 1);

  // The input of a layer is the output of the one before, which may still be on its way.
  assign available = !core_config::PART_FOLLOWS[part] || active_layer == layer || (active_words > word);
  assign read = scanning && available && (!comparing || advance);
  assign signal_address = core_config::PART_SIGNAL[part*SIGNAL_BITS+:SIGNAL_BITS] + word
      + (core_config::PART_FRAME[part] && half ? SIGNAL_BITS'(FRAME_WORDS) : '0);
  assign held_address = held_word;
  assign frame_taken = read && core_config::PART_FRAME[part] && last_word;

  always_ff @(posedge clock) begin
    if (reset) begin
      scanning <= 1'b0;
    end else if (start) begin
      scanning <= 1'b1;
    end else if (read && last_word && last_part) begin
      scanning <= 1'b0;
    end
  end

  always_ff @(posedge clock) begin
    if (start) begin
      half <= frame_half;
      part <= '0;
      word <= '0;
      column <= '0;
      held_word <= '0;
    end else if (read) begin
      held_word <= held_word + 1'b1;
      if (last_word) begin
        part <= part + 1'b1;
        word <= '0;
        column <= core_config::PART_NEXT_WEIGHT[part*WEIGHT_BITS+:WEIGHT_BITS];
      end else begin
        word <= word + 1'b1;
        column <= column + (WEIGHT_BITS'(core_config::PART_CLOCKS[part*GROUP_BITS+:GROUP_BITS]) << ENCODER_SHIFT);
      end
    end
  end

  always_ff @(posedge clock) begin
    if (reset) begin
      comparing <= 1'b0;
    end else if (read) begin
      comparing <= 1'b1;
    end else if (advance) begin
      comparing <= 1'b0;
    end
  end

  always_ff @(posedge clock) begin
    if (read) begin
      compared_part <= part;
      compared_column <= column;
      compared_held <= held_word;
      compared_end <= last_word && core_config::PART_ENDS[part];
    end
  end

  // Dense layers have no register: their threshold is 0.
  assign threshold_index = core_config::PART_THRESHOLD[compared_part*THRESHOLD_INDEX_BITS+:THRESHOLD_INDEX_BITS];
  assign threshold = threshold_index == THRESHOLD_INDEX_BITS'(THRESHOLDS) ? '0
      : thresholds[threshold_index*THRESHOLD_BITS+:THRESHOLD_BITS];

  generate
    for (genvar value = 0; value < ENCODER_WIDTH; value++) begin : gen_compare
      logic signed [A_BITS-1:0] now;
      logic signed [A_BITS-1:0] held;
      logic signed [DELTA_BITS-1:0] delta;
      logic [DELTA_BITS-1:0] magnitude;
      assign now = signal_data[value*A_BITS+:A_BITS];
      assign held = held_data[value*A_BITS+:A_BITS];
      assign delta = DELTA_BITS'(now) - DELTA_BITS'(held);
      assign magnitude = delta[DELTA_BITS-1] ? -delta : delta;
      // A change of nothing is no event even where the threshold is 0.
      assign fires[value] = magnitude >= DELTA_BITS'(threshold) && magnitude != '0;
      assign compared_deltas[value*DELTA_BITS+:DELTA_BITS] = delta;
    end
  endgenerate

  assign advance = comparing && (waiting == '0 || (push && (waiting & (waiting - 1'b1)) == '0));
  assign hold = advance ? fires : '0;
  assign hold_address = compared_held;

  always_ff @(posedge clock) begin
    if (reset) begin
      waiting <= '0;
    end else if (advance) begin
      waiting <= {compared_end, fires};
    end else if (push) begin
      waiting <= waiting & (waiting - 1'b1);
    end
  end

  always_ff @(posedge clock) begin
    if (advance) begin
      deltas <= compared_deltas;
      pushed_part <= compared_part;
      pushed_column <= compared_column;
    end
  end

  // The lowest bit that is set, alone.
  assign next = waiting & (~waiting + 1'b1);
  assign push = waiting != '0 && !full;

  always_comb begin
    pushed_delta   = '0;
    pushed_address = pushed_column;
    for (int value = 0; value < ENCODER_WIDTH; value++) begin
      if (next[value]) pushed_delta = deltas[value*DELTA_BITS+:DELTA_BITS];
    end
    for (int bit_index = 0; bit_index < ENCODER_SHIFT; bit_index++) begin
      for (int value = 0; value < ENCODER_WIDTH; value++) begin
        if (next[value] && value[bit_index])
          pushed_address = pushed_address
              + (WEIGHT_BITS'(core_config::PART_CLOCKS[pushed_part*GROUP_BITS+:GROUP_BITS]) << bit_index);
      end
    end
  end

  assign event_data = {next[ENCODER_WIDTH], pushed_part, pushed_address, pushed_delta};
endmodule

// The activation of finished layers, PIPES units at a time, while the lanes are already at the next layer's products.
// A recurrent layer takes four clocks for PIPES units, a dense layer one. What is written can be encoded a clock later.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module activation (
    input logic clock,
    input logic reset,
    input logic layer_done,

    output logic [LANES*ACC_ADDRESS_BITS-1:0] read_addresses,
    input logic [LANES*ACC_BITS-1:0] accumulators,

    output logic [ENCODER_WIDTH-1:0] write,
    output logic [SIGNAL_BITS-1:0] write_address,
    output logic [ENCODER_WIDTH*A_BITS-1:0] write_data,

    // Of the last layer: its accumulators, or hidden states where no dense layer follows.
    output logic score_write,
    output logic [UNIT_BITS-1:0] score_word,
    output logic [PIPES*ACC_BITS-1:0] scores,

    input logic clearing,
    input logic [CLEAR_BITS-1:0] clear_word,

    output logic [LAYER_BITS-1:0] active_layer,
    output logic [SIGNAL_BITS-1:0] active_words,
    output logic step_done
);
  logic is_last;
  logic is_dense;
  logic running;
  logic [1:0] slot;
  logic [UNIT_BITS-1:0] unit_word;
  logic [UNIT_BITS-1:0] unit_words;
  logic first_slot;
  logic last_slot;
  // Clocks since the first accumulator of PIPES units was asked for, one bit each; of a dense layer likewise.
  logic [PIPE_TICKS:0] tick;
  logic [PIPE_TICKS:1] later_tick;
  logic [2:1] dense_tick;

  logic [ROW_BITS-1:0] row;
  logic [ACC_ADDRESS_BITS-1:0] group_address;
  logic [LANE_BITS-1:0] first_lane;
  logic [LANE_BITS-1:0] value_lane;
  logic [LANES-1:0] wraps;

  logic [PIPES*A_BITS-1:0] states;
  logic [PIPES*A_BITS-1:0] next_states;
  logic [PIPES*A_BITS-1:0] hidden;
  logic [PIPES*A_BITS-1:0] rectified;
  logic [PIPES*A_BITS-1:0] results;
  logic [PIPES-1:0] is_unit;
  logic [UNIT_BITS-1:0] written;
  logic writes;

  assign is_last = active_layer == LAYER_BITS'(LAYERS - 1);
  assign is_dense = core_config::LAYER_DENSE[active_layer];
  assign unit_words = core_config::LAYER_UNIT_WORDS[active_layer*UNIT_BITS+:UNIT_BITS];
  assign first_slot = running && slot == '0;
  assign last_slot = is_dense || slot == 2'd3;
  assign tick = {later_tick, first_slot && !is_dense};
  assign writes = tick[PIPE_TICKS] || dense_tick[2];

  always_ff @(posedge clock) begin
    if (reset) begin
      running <= 1'b0;
      slot <= '0;
      unit_word <= '0;
      later_tick <= '0;
      dense_tick <= '0;
    end else begin
      if (layer_done) running <= 1'b1;
      if (running) begin
        slot <= last_slot ? '0 : slot + 1'b1;
        if (last_slot) begin
          unit_word <= unit_word + 1'b1;
          if (unit_word == unit_words - 1'b1) begin
            unit_word <= '0;
            running <= 1'b0;
          end
        end
      end
      later_tick <= tick[PIPE_TICKS-1:0];
      dense_tick <= {dense_tick[1], first_slot && is_dense};
    end
  end

  // Row `row` and the PIPES - 1 after it, wherever they begin among the lanes: those that wrap are a group further on.
  assign row = (ROW_BITS'(unit_word) << PIPE_SHIFT) + core_config::SLOT_ROW[{active_layer, slot}*ROW_BITS+:ROW_BITS];
  assign group_address = core_config::SLOT_ACC[{active_layer, slot}*ACC_ADDRESS_BITS+:ACC_ADDRESS_BITS]
      + ACC_ADDRESS_BITS'(row >> LANE_SHIFT);
  assign first_lane = LANES == 1 ? '0 : row[LANE_BITS-1:0];

  assign wraps = ALIGNED ? '0 : ~({LANES{1'b1}} << first_lane);

  generate
    for (genvar lane = 0; lane < LANES; lane++) begin : gen_address
      assign read_addresses[lane*ACC_ADDRESS_BITS+:ACC_ADDRESS_BITS] =
          wraps[lane] ? group_address + 1'b1 : group_address;
    end
  endgenerate

  always_ff @(posedge clock) value_lane <= first_lane;

  generate
    for (genvar pipe = 0; pipe < PIPES; pipe++) begin : gen_pipe
      logic [LANE_BITS-1:0] lane;
      logic signed [ACC_BITS-1:0] value;
      logic signed [A_BITS-1:0] pipe_hidden;
      logic signed [A_BITS-1:0] pipe_state;
      if (ALIGNED) begin : gen_aligned
        // The low bits are 0: rows begin at multiples of PIPES.
        assign lane = value_lane | LANE_BITS'(pipe);
      end else begin : gen_rotated
        assign lane = value_lane + LANE_BITS'(pipe);
      end
      always_ff @(posedge clock) value <= accumulators[lane*ACC_BITS+:ACC_BITS];

      if (IS_LSTM) begin : gen_lstm
        lstm_pipe unit (
            .clock(clock),
            .tick(tick),
            .value(value),
            .state(states[pipe*A_BITS+:A_BITS]),
            .hidden(pipe_hidden),
            .next_state(pipe_state)
        );
      end else begin : gen_gru
        gru_pipe unit (
            .clock(clock),
            .tick(tick),
            .value(value),
            .state(states[pipe*A_BITS+:A_BITS]),
            .hidden(pipe_hidden),
            .next_state(pipe_state)
        );
      end
      assign hidden[pipe*A_BITS+:A_BITS] = pipe_hidden;
      assign next_states[pipe*A_BITS+:A_BITS] = pipe_state;
      // The last word of a layer may have fewer units than pipes.
      assign is_unit[pipe] = (ROW_BITS'(written) << PIPE_SHIFT) + ROW_BITS'(pipe)
          < core_config::LAYER_UNITS[active_layer*ROW_BITS+:ROW_BITS];

      if (LAYERS > RECURRENT + 1) begin : gen_rectified
        // Dense layers but the last: a ReLU, and rounding from their own number of fraction bits.
        logic [(LAYERS-1-RECURRENT)*A_BITS-1:0] of_layer;
        logic [LAYER_BITS-1:0] dense_layer;
        assign dense_layer = active_layer - LAYER_BITS'(RECURRENT);
        for (genvar dense = 0; dense < LAYERS - 1 - RECURRENT; dense++) begin : gen_layer
          requantize #(ACC_BITS, int'(core_config::DENSE_SHIFT[dense*SHIFT_BITS+:SHIFT_BITS]), A_BITS) round_unit (
              .value (value[ACC_BITS-1] ? '0 : value),
              .result(of_layer[dense*A_BITS+:A_BITS])
          );
        end
        assign rectified[pipe*A_BITS+:A_BITS] = of_layer[dense_layer*A_BITS+:A_BITS];
      end else begin : gen_none
        assign rectified[pipe*A_BITS+:A_BITS] = '0;
      end

      if (LAYERS > RECURRENT) begin : gen_dense_scores
        assign scores[pipe*ACC_BITS+:ACC_BITS] = value;
      end else begin : gen_hidden_scores
        assign scores[pipe*ACC_BITS+:ACC_BITS] = ACC_BITS'(pipe_hidden);
      end
    end
  endgenerate

  // h of the GRU or c of the LSTM, for the next step: read once for four clocks.
  word_memory #(
      .VALUES(1),
      .BITS(PIPES * A_BITS),
      .WORDS(STATE_WORDS),
      .ADDRESS_BITS(STATE_BITS)
  ) state_memory (
      .clock(clock),
      .read(tick[1]),
      .read_address(core_config::LAYER_STATE[active_layer*STATE_BITS+:STATE_BITS] + STATE_BITS'(unit_word)),
      .read_data(states),
      .write(clearing || tick[PIPE_TICKS]),
      .write_address(clearing ? STATE_BITS'(clear_word)
          : core_config::LAYER_STATE[active_layer*STATE_BITS+:STATE_BITS] + STATE_BITS'(written)),
      .write_data(clearing ? '0 : next_states)
  );

  assign results = is_dense ? rectified : hidden;
  assign write_address = core_config::LAYER_SIGNAL[active_layer*SIGNAL_BITS+:SIGNAL_BITS]
      + SIGNAL_BITS'(written >> (ENCODER_SHIFT - PIPE_SHIFT));

  generate
    for (genvar value = 0; value < ENCODER_WIDTH; value++) begin : gen_write
      logic here;
      if (ENCODER_WIDTH > PIPES) begin : gen_part_of_word
        assign here = written[ENCODER_SHIFT-PIPE_SHIFT-1:0] == (ENCODER_SHIFT - PIPE_SHIFT)'(value / PIPES);
      end else begin : gen_whole_word
        assign here = 1'b1;
      end
      assign write[value] = writes && here && is_unit[value%PIPES] && !(is_last && is_dense);
      assign write_data[value*A_BITS+:A_BITS] = results[(value%PIPES)*A_BITS+:A_BITS];
    end
  endgenerate

  assign score_write = writes && is_last;
  assign score_word = written;
  assign active_words = SIGNAL_BITS'(written >> (ENCODER_SHIFT - PIPE_SHIFT));
  assign step_done = score_write && written == unit_words - 1'b1;

  always_ff @(posedge clock) begin
    if (reset) begin
      active_layer <= '0;
      written <= '0;
    end else if (writes) begin
      written <= written + 1'b1;
      if (written == unit_words - 1'b1) begin
        written <= '0;
        active_layer <= is_last ? '0 : active_layer + 1'b1;
      end
    end
  end

  // Larger memories are cleared along.
  logic unused;
  assign unused = &{1'b0, clear_word};
endmodule

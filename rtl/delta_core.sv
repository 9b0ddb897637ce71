// DeltaCore: a delta recurrent network of several layers with its dense head. One frame in, its scores and class out.
//
//   frames -> signal memory -> delta encoder -> event queue -> product lanes -> activation -> scores
//                  ^             (held memory)               (weight memory)        |
//                  +----------------------------------------------------------------+
//
// Everything a step depends on passes through this ring in order, layer after layer; the lanes multiply one layer
// while the activation finishes the one before.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module delta_core (
    input logic clock,
    input logic reset,

    // A frame: INPUTS values of the activation format, sign-extended to whole bytes.
    input logic [AXIS_IN_BITS-1:0] s_axis_tdata,
    input logic s_axis_tvalid,
    output logic s_axis_tready,
    input logic s_axis_tlast,

    // Its scores, sign-extended; TUSER on TLAST's beat is the class.
    output logic [31:0] m_axis_tdata,
    output logic [AXIS_USER_BITS-1:0] m_axis_tuser,
    output logic m_axis_tvalid,
    input logic m_axis_tready,
    output logic m_axis_tlast,

    // Threshold registers, written between steps.
    input logic threshold_valid,
    output logic threshold_ready,
    input logic [THRESHOLD_INDEX_BITS-1:0] threshold_index,
    input logic [THRESHOLD_BITS-1:0] threshold_value,

    // New weights, taken between steps.
    input logic [AXIS_WEIGHT_BITS-1:0] w_axis_tdata,
    input logic w_axis_tvalid,
    output logic w_axis_tready,
    input logic w_axis_tlast,

    // A step is under way; a frame of the wrong length was dropped.
    output logic busy,
    output logic frame_error
);
  logic clearing;
  logic [CLEAR_BITS-1:0] clear_word;
  logic [LANES-1:0] preset;
  logic [ACC_ADDRESS_BITS-1:0] preset_address;
  logic [ACC_BITS-1:0] preset_value;

  logic frame_write;
  logic [INPUT_INDEX_BITS:0] frame_index;
  logic [A_BITS-1:0] frame_value;
  logic frame_ready;
  logic frame_half;
  logic frame_taken;

  logic start;
  logic settled;
  logic step_done;
  logic [THRESHOLDS*THRESHOLD_BITS-1:0] thresholds;

  logic encoder_read;
  logic [SIGNAL_BITS-1:0] signal_address;
  logic [ENCODER_WIDTH*A_BITS-1:0] signal_data;
  logic [ENCODER_WIDTH-1:0] signal_write;
  logic [SIGNAL_BITS-1:0] signal_write_address;
  logic [ENCODER_WIDTH*A_BITS-1:0] signal_write_data;
  logic [HELD_BITS-1:0] held_address;
  logic [ENCODER_WIDTH*A_BITS-1:0] held_data;
  logic [ENCODER_WIDTH-1:0] hold;
  logic [HELD_BITS-1:0] hold_address;

  logic push;
  logic [EVENT_BITS-1:0] pushed_event;
  logic queue_full;
  logic event_taken;
  logic [EVENT_BITS-1:0] front_event;
  logic queue_empty;

  logic [WEIGHT_BITS-1:0] weight_address;
  logic [LANES*ENTRY_BITS-1:0] entries;
  logic weight_write;
  logic [WEIGHT_BITS-1:0] weight_write_address;
  logic [LANES*ENTRY_BITS-1:0] weight_write_data;
  logic multiplying;
  logic layer_done;

  logic [LANES*ACC_ADDRESS_BITS-1:0] accumulator_addresses;
  logic [LANES*ACC_BITS-1:0] accumulators;
  logic [ENCODER_WIDTH-1:0] result_write;
  logic [SIGNAL_BITS-1:0] result_address;
  logic [ENCODER_WIDTH*A_BITS-1:0] result_data;
  logic [LAYER_BITS-1:0] active_layer;
  logic [SIGNAL_BITS-1:0] active_words;
  logic score_free;
  logic score_write;
  logic [UNIT_BITS-1:0] score_word;
  logic [PIPES*ACC_BITS-1:0] scores;

  initializer initializer_unit (
      .clock(clock),
      .reset(reset),
      .clearing(clearing),
      .clear_word(clear_word),
      .preset(preset),
      .preset_address(preset_address),
      .preset_value(preset_value)
  );

  frame_input input_unit (
      .clock(clock),
      .reset(reset),
      .s_axis_tdata(s_axis_tdata),
      .s_axis_tvalid(s_axis_tvalid),
      .s_axis_tready(s_axis_tready),
      .s_axis_tlast(s_axis_tlast),
      .frame_error(frame_error),
      .blocked(clearing || (|result_write)),
      .write(frame_write),
      .write_index(frame_index),
      .write_value(frame_value),
      .frame_ready(frame_ready),
      .frame_half(frame_half),
      .frame_taken(frame_taken)
  );

  // Between steps, registers and weights come before the next frame.
  assign settled = !busy && !clearing && !reset;
  assign threshold_ready = settled;
  assign start = settled && frame_ready && score_free && !threshold_valid && !w_axis_tvalid && !weight_write;

  always_ff @(posedge clock) begin
    if (reset) busy <= 1'b0;
    else if (start) busy <= 1'b1;
    else if (step_done) busy <= 1'b0;
  end

  threshold_registers register_unit (
      .clock(clock),
      .reset(reset),
      .write(threshold_valid && threshold_ready),
      .index(threshold_index),
      .value(threshold_value),
      .thresholds(thresholds)
  );

  // The signal memory has one port to write: clearing, then results, then the frame, which waits.
  always_comb begin
    signal_write = result_write;
    signal_write_address = result_address;
    signal_write_data = result_data;
    if (clearing) begin
      signal_write = '1;
      signal_write_address = SIGNAL_BITS'(clear_word);
      signal_write_data = '0;
    end else if (frame_write) begin
      signal_write = ENCODER_WIDTH'(1) << (frame_index[INPUT_INDEX_BITS-1:0] & (INPUT_INDEX_BITS)'(ENCODER_WIDTH - 1));
      signal_write_address = SIGNAL_BITS'(frame_index[INPUT_INDEX_BITS-1:0] >> ENCODER_SHIFT)
          + (frame_index[INPUT_INDEX_BITS] ? SIGNAL_BITS'(FRAME_WORDS) : '0);
      signal_write_data = {ENCODER_WIDTH{frame_value}};
    end
  end

  word_memory #(
      .VALUES(ENCODER_WIDTH),
      .BITS(A_BITS),
      .WORDS(SIGNAL_WORDS),
      .ADDRESS_BITS(SIGNAL_BITS)
  ) signal_memory (
      .clock(clock),
      .read(encoder_read),
      .read_address(signal_address),
      .read_data(signal_data),
      .write(signal_write),
      .write_address(signal_write_address),
      .write_data(signal_write_data)
  );

  word_memory #(
      .VALUES(ENCODER_WIDTH),
      .BITS(A_BITS),
      .WORDS(HELD_WORDS),
      .ADDRESS_BITS(HELD_BITS)
  ) held_memory (
      .clock(clock),
      .read(encoder_read),
      .read_address(held_address),
      .read_data(held_data),
      .write(clearing ? '1 : hold),
      .write_address(clearing ? HELD_BITS'(clear_word) : hold_address),
      .write_data(clearing ? '0 : signal_data)
  );

  delta_encoder encoder_unit (
      .clock(clock),
      .reset(reset),
      .start(start),
      .frame_half(frame_half),
      .frame_taken(frame_taken),
      .thresholds(thresholds),
      .active_layer(active_layer),
      .active_words(active_words),
      .read(encoder_read),
      .signal_address(signal_address),
      .signal_data(signal_data),
      .held_address(held_address),
      .held_data(held_data),
      .hold(hold),
      .hold_address(hold_address),
      .push(push),
      .event_data(pushed_event),
      .full(queue_full)
  );

  event_queue #(
      .BITS(EVENT_BITS),
      .DEPTH_BITS(QUEUE_SHIFT)
  ) queue_unit (
      .clock(clock),
      .reset(reset),
      .push(push),
      .push_data(pushed_event),
      .full(queue_full),
      .pop(event_taken),
      .front(front_event),
      .empty(queue_empty)
  );

  weight_loader loader_unit (
      .clock(clock),
      .reset(reset),
      .blocked(!settled),
      .w_axis_tdata(w_axis_tdata),
      .w_axis_tvalid(w_axis_tvalid),
      .w_axis_tready(w_axis_tready),
      .w_axis_tlast(w_axis_tlast),
      .write(weight_write),
      .write_address(weight_write_address),
      .write_data(weight_write_data)
  );

  weight_memory #(
      .WORD_BITS(LANES * ENTRY_BITS),
      .WORDS(WEIGHT_WORDS),
      .ADDRESS_BITS(WEIGHT_BITS),
      .IMAGE("weights.hex")
  ) weight_unit (
      .clock(clock),
      .read_address(weight_address),
      .read_data(entries),
      .write(weight_write),
      .write_address(weight_write_address),
      .write_data(weight_write_data)
  );

  product_lanes lanes_unit (
      .clock(clock),
      .reset(reset),
      .event_data(front_event),
      .event_waits(!queue_empty),
      .event_taken(event_taken),
      .weight_address(weight_address),
      .entries(entries),
      .preset(preset),
      .preset_address(preset_address),
      .preset_value(preset_value),
      .read_addresses(accumulator_addresses),
      .read_data(accumulators),
      .multiplying(multiplying),
      .layer_done(layer_done)
  );

  activation activation_unit (
      .clock(clock),
      .reset(reset),
      .layer_done(layer_done),
      .read_addresses(accumulator_addresses),
      .accumulators(accumulators),
      .write(result_write),
      .write_address(result_address),
      .write_data(result_data),
      .score_write(score_write),
      .score_word(score_word),
      .scores(scores),
      .clearing(clearing),
      .clear_word(clear_word),
      .active_layer(active_layer),
      .active_words(active_words),
      .step_done(step_done)
  );

  score_output output_unit (
      .clock(clock),
      .reset(reset),
      .write(score_write),
      .write_word(score_word),
      .write_scores(scores),
      .complete(step_done),
      .free(score_free),
      .m_axis_tdata(m_axis_tdata),
      .m_axis_tuser(m_axis_tuser),
      .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready),
      .m_axis_tlast(m_axis_tlast)
  );

  logic unused;
  assign unused = multiplying;
endmodule

// DeltaCore behind a serial port: three pins, so that a board can be tried from a computer. The first byte of what is
// sent tells what follows, in its two lowest bits:
//   0  a reset; nothing follows
//   1  a frame: INPUTS values. Its answer: the scores, four bytes each, then the class
//   2  a threshold: the value of the register whose index is in the byte's other six bits
//   3  the weights, in the order of the weight stream
// Values are whole bytes, the lowest first. The next frame is sent when the answer has come: a line has no ready.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module serial_board #(
    parameter int CLOCKS_PER_BIT = 12
) (
    input  logic clock,
    input  logic rx,
    output logic tx
);
  localparam logic [1:0] RESET = 2'd0, FRAME = 2'd1, THRESHOLD = 2'd2, WEIGHTS = 2'd3;
  localparam int WEIGHTS_COUNT = WEIGHT_WORDS * LANES;
  localparam int LEFT_BITS = $clog2((WEIGHTS_COUNT > INPUTS ? WEIGHTS_COUNT : INPUTS) + 1);
  localparam int VALUE_BITS = 16;
  localparam int THRESHOLD_BYTES = (THRESHOLD_BITS + 7) / 8;
  localparam int ANSWER_BYTES = 4 + AXIS_USER_BITS / 8;

  // Memories of an iCE40 answer only some microseconds after the configuration has ended.
  // Nothing resets this counter but the configuration.
  /* verilator lint_off PROCASSINIT */
  logic [7:0] awake = '0;
  /* verilator lint_on PROCASSINIT */
  logic reset;
  logic core_reset;

  logic byte_valid;
  logic [7:0] byte_data;
  logic [1:0] kind;
  logic [5:0] register_index;
  // Values still to come; 0 between commands.
  logic [LEFT_BITS-1:0] left;
  logic byte_index;
  logic last_byte;
  logic value_valid;
  logic [VALUE_BITS-1:0] value;
  logic value_taken;

  logic s_axis_tready;
  logic w_axis_tready;
  logic threshold_ready;
  logic [31:0] m_axis_tdata;
  logic [AXIS_USER_BITS-1:0] m_axis_tuser;
  logic m_axis_tvalid;
  logic m_axis_tready;
  logic m_axis_tlast;

  logic busy;
  logic frame_error;

  logic [8*ANSWER_BYTES-1:0] answer;
  logic [2:0] answer_left;
  logic sender_ready;

  assign reset = awake != '1;
  always_ff @(posedge clock) if (reset) awake <= awake + 1'b1;

  serial_receiver #(CLOCKS_PER_BIT) receiver (
      .clock(clock),
      .reset(reset),
      .line (rx),
      .valid(byte_valid),
      .data (byte_data)
  );

  always_comb begin
    case (kind)
      FRAME: begin
        value_taken = s_axis_tready;
        last_byte   = byte_index == 1'(AXIS_IN_BITS / 8 - 1);
      end
      THRESHOLD: begin
        value_taken = threshold_ready;
        last_byte   = byte_index == 1'(THRESHOLD_BYTES - 1);
      end
      default: begin
        value_taken = w_axis_tready;
        last_byte   = byte_index == 1'(AXIS_WEIGHT_BITS / 8 - 1);
      end
    endcase
  end

  always_ff @(posedge clock) begin
    core_reset <= reset;
    if (reset) begin
      left <= '0;
      value_valid <= 1'b0;
      byte_index <= '0;
    end else begin
      if (value_valid && value_taken) begin
        value_valid <= 1'b0;
        left <= left - 1'b1;
      end
      if (byte_valid && left == '0) begin
        kind <= byte_data[1:0];
        register_index <= byte_data[7:2];
        core_reset <= byte_data[1:0] == RESET;
        case (byte_data[1:0])
          FRAME: left <= LEFT_BITS'(INPUTS);
          THRESHOLD: left <= LEFT_BITS'(1);
          WEIGHTS: left <= LEFT_BITS'(WEIGHTS_COUNT);
          default: left <= '0;
        endcase
      end else if (byte_valid) begin
        byte_index <= !last_byte;
        value_valid <= last_byte;
        value[byte_index*8+:8] <= byte_data;
      end
    end
  end

  delta_core core (
      .clock(clock),
      .reset(core_reset),
      .s_axis_tdata(value[AXIS_IN_BITS-1:0]),
      .s_axis_tvalid(value_valid && kind == FRAME),
      .s_axis_tready(s_axis_tready),
      .s_axis_tlast(left == LEFT_BITS'(1)),
      .m_axis_tdata(m_axis_tdata),
      .m_axis_tuser(m_axis_tuser),
      .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready),
      .m_axis_tlast(m_axis_tlast),
      .threshold_valid(value_valid && kind == THRESHOLD),
      .threshold_ready(threshold_ready),
      .threshold_index(register_index[THRESHOLD_INDEX_BITS-1:0]),
      .threshold_value(value[THRESHOLD_BITS-1:0]),
      .w_axis_tdata(value[AXIS_WEIGHT_BITS-1:0]),
      .w_axis_tvalid(value_valid && kind == WEIGHTS),
      .w_axis_tready(w_axis_tready),
      .w_axis_tlast(left == LEFT_BITS'(1)),
      .busy(busy),
      .frame_error(frame_error)
  );

  assign m_axis_tready = answer_left == '0;

  always_ff @(posedge clock) begin
    if (core_reset) begin
      answer_left <= '0;
    end else if (m_axis_tvalid && m_axis_tready) begin
      answer <= {m_axis_tuser, m_axis_tdata};
      answer_left <= m_axis_tlast ? 3'(ANSWER_BYTES) : 3'd4;
    end else if (answer_left != '0 && sender_ready) begin
      answer <= answer >> 8;
      answer_left <= answer_left - 1'b1;
    end
  end

  serial_sender #(CLOCKS_PER_BIT) sender (
      .clock(clock),
      .reset(reset),
      .valid(answer_left != '0),
      .ready(sender_ready),
      .data (answer[7:0]),
      .line (tx)
  );

  logic unused;
  assign unused = &{1'b0, register_index, value, busy, frame_error};
endmodule

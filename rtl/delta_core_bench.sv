// Drives DeltaCore by a file of commands, and writes down what it does. The clock comes from outside.
//
// A command is three numbers:
//   0 VALUE LAST   a beat of the input stream       3 VALUE LAST   a beat of the weight stream
//   1 CLOCKS 0     reset                            4 CLOCKS 0     nothing
//   2 INDEX VALUE  a threshold register             5 0 0          until all frames sent have come out
// A record is a line:
//   f WORD FIRES              a word of the encoder, by its place in the held memory, and which of its values fired
//   h WORD UNITS VALUES       hidden states written, by their place in the signal memory
//   o SCORE USER LAST         a beat of the output stream
//   c CLOCKS PRODUCTS BUSY    a step: its clocks, those from each layer's first product to its last, those multiplying
//   e                         a frame was dropped
//   r                         a reset
//
// +commands=FILE +record=FILE, and of 65536 clocks +stall_in=N without a beat offered, +stall_out=N without one taken;
// +seed=N, not 0.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module delta_core_bench (
    input logic clock
);
  string commands_name;
  string record_name;
  int commands;
  int record;
  int stall_in;
  int stall_out;
  int seed;
  logic [31:0] noise;
  logic [31:0] turned;
  logic [31:0] shifted;

  int next_operation;
  int next_first;
  int next_second;
  int operation;
  int first;
  int second;
  logic pending;
  logic finished;
  logic offering;
  int left;
  int sent;
  int received;
  int idle_clocks;

  logic reset;
  logic [AXIS_IN_BITS-1:0] s_axis_tdata;
  logic s_axis_tvalid;
  logic s_axis_tready;
  logic s_axis_tlast;
  logic [31:0] m_axis_tdata;
  logic [AXIS_USER_BITS-1:0] m_axis_tuser;
  logic m_axis_tvalid;
  logic m_axis_tready;
  logic m_axis_tlast;
  logic threshold_valid;
  logic threshold_ready;
  logic [AXIS_WEIGHT_BITS-1:0] w_axis_tdata;
  logic w_axis_tvalid;
  logic w_axis_tready;
  logic w_axis_tlast;
  logic busy;
  logic frame_error;

  int clocks;
  int product_clocks;
  int busy_clocks;
  int pause;
  logic producing;

  delta_core core (
      .clock(clock),
      .reset(reset),
      .s_axis_tdata(s_axis_tdata),
      .s_axis_tvalid(s_axis_tvalid),
      .s_axis_tready(s_axis_tready),
      .s_axis_tlast(s_axis_tlast),
      .m_axis_tdata(m_axis_tdata),
      .m_axis_tuser(m_axis_tuser),
      .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready),
      .m_axis_tlast(m_axis_tlast),
      .threshold_valid(threshold_valid),
      .threshold_ready(threshold_ready),
      .threshold_index(THRESHOLD_INDEX_BITS'(first)),
      .threshold_value(THRESHOLD_BITS'(second)),
      .w_axis_tdata(w_axis_tdata),
      .w_axis_tvalid(w_axis_tvalid),
      .w_axis_tready(w_axis_tready),
      .w_axis_tlast(w_axis_tlast),
      .busy(busy),
      .frame_error(frame_error)
  );

  initial begin
    if ($value$plusargs("commands=%s", commands_name) == 0) $fatal(1, "+commands=FILE is missing");
    if ($value$plusargs("record=%s", record_name) == 0) $fatal(1, "+record=FILE is missing");
    if ($value$plusargs("stall_in=%d", stall_in) == 0) stall_in = 0;
    if ($value$plusargs("stall_out=%d", stall_out) == 0) stall_out = 0;
    if ($value$plusargs("seed=%d", seed) == 0) seed = 1;
    commands = $fopen(commands_name, "r");
    record = $fopen(record_name, "w");
    if (commands == 0) $fatal(1, "%s cannot be read", commands_name);
    if (record == 0) $fatal(1, "%s cannot be written", record_name);
  end

  // Xorshift: bits that look random.
  always @(posedge clock) begin
    if (noise == 0) noise <= seed;
    else noise <= shifted ^ (shifted << 5);
  end
  assign turned  = noise ^ (noise << 13);
  assign shifted = turned ^ (turned >> 17);

  assign s_axis_tdata  = AXIS_IN_BITS'(first);
  assign s_axis_tlast  = second != 0;
  assign s_axis_tvalid = pending && operation == 0 && offering;
  assign w_axis_tdata  = AXIS_WEIGHT_BITS'(first);
  assign w_axis_tlast  = second != 0;
  assign w_axis_tvalid = pending && operation == 3;
  assign threshold_valid = pending && operation == 2;

  logic done;
  always_comb begin
    case (operation)
      0: done = s_axis_tvalid && s_axis_tready;
      2: done = threshold_ready;
      3: done = w_axis_tready;
      5: done = sent == received && !busy;
      default: done = left <= 1;
    endcase
  end

  initial begin
    noise = 0;
    pending = 1'b0;
    finished = 1'b0;
    offering = 1'b0;
    operation = 4;
    next_operation = 1;
    first = 0;
    second = 0;
    left = 0;
    sent = 0;
    received = 0;
    idle_clocks = 0;
    reset = 1'b1;
    m_axis_tready = 1'b0;
  end

  /* verilator lint_off BLKSEQ */
  always @(posedge clock) begin
    sent <= sent + int'(s_axis_tvalid && s_axis_tready && s_axis_tlast) - int'(frame_error);
    received <= received + int'(m_axis_tvalid && m_axis_tready && m_axis_tlast);
    left <= left - 1;
    if (!pending || done) begin
      if (finished) $finish;
      if ($fscanf(commands, "%d %d %d", next_operation, next_first, next_second) != 3) begin
        next_operation = 5;
        finished <= 1'b1;
      end
      pending <= 1'b1;
      operation <= next_operation;
      first <= next_first;
      second <= next_second;
      left <= next_first;
      if (next_operation == 1) begin
        sent <= 0;
        received <= 0;
      end
    end
    if (!pending || done || !offering) begin
      offering <= int'(noise[15:0]) >= stall_in;
    end
    reset <= next_operation == 1;
    m_axis_tready <= int'(noise[31:16]) >= stall_out;
    // A core that is stuck ends the run too.
    idle_clocks <= core.multiplying || done ? 0 : idle_clocks + 1;
    if (idle_clocks > 100000) $fatal(1, "the core is stuck");
  end

  always @(posedge clock) begin
    if (reset) $fwrite(record, "r\n");
    if (frame_error) $fwrite(record, "e\n");
    if (core.encoder_unit.advance && core.encoder_unit.fires != '0)
      $fwrite(record, "f %0d %h\n", core.encoder_unit.compared_held, core.encoder_unit.fires);
    if (core.result_write != '0)
      $fwrite(record, "h %0d %h %h\n", core.result_address, core.result_write, core.result_data);
    if (m_axis_tvalid && m_axis_tready)
      $fwrite(record, "o %0d %0d %0d\n", $signed(m_axis_tdata), m_axis_tuser, m_axis_tlast);
  end

  always @(posedge clock) begin
    if (core.start) begin
      clocks = 1;
      product_clocks = 0;
      busy_clocks = 0;
      pause = 0;
      producing = 1'b0;
    end else begin
      clocks = clocks + 1;
    end
    if (core.multiplying) begin
      product_clocks = product_clocks + pause + 1;
      busy_clocks = busy_clocks + 1;
      pause = 0;
      producing = 1'b1;
    end else if (core.event_taken) begin
      pause = 0;
      producing = 1'b0;
    end else if (producing) begin
      pause = pause + 1;
    end
    if (core.step_done) $fwrite(record, "c %0d %0d %0d\n", clocks, product_clocks, busy_clocks);
  end
  /* verilator lint_on BLKSEQ */

  logic unused;
  assign unused = &{1'b0, first, second};
endmodule

// The output stream: the scores of a step, one a beat, TLAST on the last. TUSER is the index of the largest so far, the
// first of equals: on TLAST's beat, the class. One half of the buffer is sent while the next step fills the other; a
// step starts when there is one to fill, so that none ever waits half-way.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module score_output (
    input logic clock,
    input logic reset,

    input logic write,
    input logic [UNIT_BITS-1:0] write_word,
    input logic [PIPES*ACC_BITS-1:0] write_scores,
    input logic complete,
    output logic free,

    output logic [31:0] m_axis_tdata,
    output logic [AXIS_USER_BITS-1:0] m_axis_tuser,
    output logic m_axis_tvalid,
    input logic m_axis_tready,
    output logic m_axis_tlast
);
  logic [1:0] filled;
  logic filling_half;
  logic sending_half;
  logic beat;
  logic is_best;
  logic [OUTPUT_INDEX_BITS-1:0] index;
  logic [OUTPUT_INDEX_BITS-1:0] next_index;
  logic [OUTPUT_INDEX_BITS-1:0] best_index;
  logic [OUTPUT_INDEX_BITS-1:0] pipe;
  logic signed [ACC_BITS-1:0] best;
  logic signed [ACC_BITS-1:0] score;
  logic [PIPES*ACC_BITS-1:0] word;

  word_memory #(
      .VALUES(1),
      .BITS(PIPES * ACC_BITS),
      .WORDS(2 * SCORE_WORDS),
      .ADDRESS_BITS(SCORE_BITS)
  ) score_memory (
      .clock(clock),
      .read(1'b1),
      .read_address(SCORE_BITS'(next_index >> PIPE_SHIFT) + (sending_half ? SCORE_BITS'(SCORE_WORDS) : '0)),
      .read_data(word),
      .write(write),
      .write_address(SCORE_BITS'(write_word) + (filling_half ? SCORE_BITS'(SCORE_WORDS) : '0)),
      .write_data(write_scores)
  );

  assign free = !filled[filling_half];
  assign beat = m_axis_tvalid && m_axis_tready;
  assign next_index = beat ? (m_axis_tlast ? '0 : index + 1'b1) : index;
  assign pipe = index & OUTPUT_INDEX_BITS'(PIPES - 1);
  assign score = word[pipe*ACC_BITS+:ACC_BITS];
  assign is_best = index == '0 || score > best;

  assign m_axis_tdata = 32'(score);
  assign m_axis_tlast = index == OUTPUT_INDEX_BITS'(OUTPUTS - 1);
  assign m_axis_tuser = AXIS_USER_BITS'(is_best ? index : best_index);

  always_ff @(posedge clock) begin
    if (reset) begin
      filled <= '0;
      filling_half <= 1'b0;
      sending_half <= 1'b0;
      m_axis_tvalid <= 1'b0;
      index <= '0;
    end else begin
      index <= next_index;
      if (complete) begin
        filled[filling_half] <= 1'b1;
        filling_half <= !filling_half;
      end
      if (beat && m_axis_tlast) begin
        filled[sending_half] <= 1'b0;
        sending_half <= !sending_half;
        m_axis_tvalid <= 1'b0;
      end else if (!m_axis_tvalid) begin
        // The first score is being read.
        m_axis_tvalid <= filled[sending_half];
      end
    end
  end

  always_ff @(posedge clock) begin
    if (beat && is_best) begin
      best <= score;
      best_index <= index;
    end
  end

  // Other layers may have more words.
  logic unused;
  assign unused = &{1'b0, write_word};
endmodule

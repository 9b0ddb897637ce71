// The weights, one word a clock: a weight for each lane. This is the form that tools infer block memory from; a target
// whose memory has to be named has a module of its own with these ports.
module weight_memory #(
    parameter int WORD_BITS = 64,
    parameter int WORDS = 16,
    parameter int ADDRESS_BITS = 4,
    parameter IMAGE = "weights.hex"
) (
    input logic clock,
    input logic [ADDRESS_BITS-1:0] read_address,
    output logic [WORD_BITS-1:0] read_data,
    input logic write,
    input logic [ADDRESS_BITS-1:0] write_address,
    input logic [WORD_BITS-1:0] write_data
);
  (* no_rw_check *) logic [WORD_BITS-1:0] words[WORDS];

  initial $readmemh(IMAGE, words);

  always_ff @(posedge clock) begin
    if (write) words[write_address] <= write_data;
  end

  always_ff @(posedge clock) begin
    read_data <= words[read_address];
  end
endmodule

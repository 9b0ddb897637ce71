// Words of VALUES values: one read port with a registered output that holds, one write port with an enable per value.
// Nothing here reads a word in the clock that writes it, so either content will do then (no_rw_check).
module word_memory #(
    parameter int VALUES = 4,
    parameter int BITS = 8,
    parameter int WORDS = 16,
    parameter int ADDRESS_BITS = 4
) (
    input logic clock,
    input logic read,
    input logic [ADDRESS_BITS-1:0] read_address,
    output logic [VALUES*BITS-1:0] read_data,
    input logic [VALUES-1:0] write,
    input logic [ADDRESS_BITS-1:0] write_address,
    input logic [VALUES*BITS-1:0] write_data
);
  (* no_rw_check *) logic [VALUES*BITS-1:0] words[WORDS];

  always_ff @(posedge clock) begin
    for (int value = 0; value < VALUES; value++) begin
      if (write[value]) words[write_address][value*BITS+:BITS] <= write_data[value*BITS+:BITS];
    end
  end

  always_ff @(posedge clock) begin
    if (read) read_data <= words[read_address];
  end
endmodule

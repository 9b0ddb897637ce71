// Bytes from a serial line: eight data bits, the lowest first, no parity, one stop bit, each CLOCKS_PER_BIT clocks.
module serial_receiver #(
    parameter int CLOCKS_PER_BIT = 12
) (
    input  logic       clock,
    input  logic       reset,
    input  logic       line,
    output logic       valid,
    output logic [7:0] data
);
  localparam int COUNT_BITS = $clog2(CLOCKS_PER_BIT);

  logic [1:0] settled;
  logic [COUNT_BITS-1:0] count;
  // Bits still to come, of the start bit, eight of data and the stop bit; 0 between bytes.
  logic [3:0] left;

  // The line has no clock: two registers settle it.
  always_ff @(posedge clock) settled <= {settled[0], line};

  always_ff @(posedge clock) begin
    valid <= 1'b0;
    if (reset) begin
      left <= '0;
    end else if (left == '0) begin
      // Each bit is read in its middle.
      count <= COUNT_BITS'(CLOCKS_PER_BIT / 2);
      if (!settled[1]) left <= 4'd10;
    end else if (count != '0) begin
      count <= count - 1'b1;
    end else begin
      count <= COUNT_BITS'(CLOCKS_PER_BIT - 1);
      left  <= left - 1'b1;
      if (left == 4'd10 && settled[1]) left <= '0;  // too short for a start bit
      valid <= left == 4'd1 && settled[1];
      if (left > 4'd1) data <= {settled[1], data[7:1]};
    end
  end
endmodule

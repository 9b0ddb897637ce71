// Bytes onto a serial line, in the form that serial_receiver reads.
module serial_sender #(
    parameter int CLOCKS_PER_BIT = 12
) (
    input  logic       clock,
    input  logic       reset,
    input  logic       valid,
    output logic       ready,
    input  logic [7:0] data,
    output logic       line
);
  localparam int COUNT_BITS = $clog2(CLOCKS_PER_BIT);

  logic [COUNT_BITS-1:0] count;
  // The bits still to send, the next one lowest; ones stand for an idle line.
  logic [9:0] bits;
  logic [3:0] left;

  assign ready = left == '0;
  assign line  = bits[0];

  always_ff @(posedge clock) begin
    if (reset) begin
      bits <= '1;
      left <= '0;
    end else if (ready) begin
      count <= COUNT_BITS'(CLOCKS_PER_BIT - 1);
      if (valid) begin
        bits <= {1'b1, data, 1'b0};
        left <= 4'd10;
      end
    end else if (count != '0) begin
      count <= count - 1'b1;
    end else begin
      count <= COUNT_BITS'(CLOCKS_PER_BIT - 1);
      bits  <= {1'b1, bits[9:1]};
      left  <= left - 1'b1;
    end
  end
endmodule

// A first-in first-out queue whose front is always visible.
module event_queue #(
    parameter int BITS = 32,
    parameter int DEPTH_BITS = 3
) (
    input logic clock,
    input logic reset,
    input logic push,
    input logic [BITS-1:0] push_data,
    output logic full,
    input logic pop,
    output logic [BITS-1:0] front,
    output logic empty
);
  logic [BITS-1:0] entries[2**DEPTH_BITS];
  logic [DEPTH_BITS:0] head;
  logic [DEPTH_BITS:0] tail;

  assign empty = head == tail;
  assign full  = head[DEPTH_BITS-1:0] == tail[DEPTH_BITS-1:0] && head[DEPTH_BITS] != tail[DEPTH_BITS];
  assign front = entries[head[DEPTH_BITS-1:0]];

  always_ff @(posedge clock) begin
    if (push) entries[tail[DEPTH_BITS-1:0]] <= push_data;
  end

  always_ff @(posedge clock) begin
    if (reset) begin
      head <= '0;
      tail <= '0;
    end else begin
      if (push) tail <= tail + 1'b1;
      if (pop) head <= head + 1'b1;
    end
  end
endmodule

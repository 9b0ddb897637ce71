// What weight_memory_ice40 uses of the iCE40's SB_SPRAM256KA, for simulation.
module SB_SPRAM256KA (
    input logic CLOCK,
    input logic [13:0] ADDRESS,
    input logic [15:0] DATAIN,
    input logic [3:0] MASKWREN,
    input logic WREN,
    input logic CHIPSELECT,
    input logic STANDBY,
    input logic SLEEP,
    input logic POWEROFF,
    output logic [15:0] DATAOUT
);
  logic [15:0] words[16384];

  always_ff @(posedge CLOCK) begin
    if (CHIPSELECT && !STANDBY && !SLEEP && POWEROFF) begin
      for (int nibble = 0; nibble < 4; nibble++) begin
        if (WREN && MASKWREN[nibble]) words[ADDRESS][nibble*4+:4] <= DATAIN[nibble*4+:4];
      end
      if (!WREN) DATAOUT <= words[ADDRESS];
    end
  end
endmodule

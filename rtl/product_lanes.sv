// The multiplier lanes. Row r of a layer belongs to lane r mod LANES; the event at the front of the queue has its
// column multiplied group by group, a row for each lane and clock, and the next event follows without a pause.
/* verilator lint_off IMPORTSTAR */  // yosys takes imports at file scope only
import core_config::*;
/* verilator lint_on IMPORTSTAR */

module product_lanes (
    input logic clock,
    input logic reset,

    input logic [EVENT_BITS-1:0] event_data,
    input logic event_waits,
    output logic event_taken,

    output logic [WEIGHT_BITS-1:0] weight_address,
    input logic [LANES*ENTRY_BITS-1:0] entries,

    input logic [LANES-1:0] preset,
    input logic [ACC_ADDRESS_BITS-1:0] preset_address,
    input logic [ACC_BITS-1:0] preset_value,

    input logic [LANES*ACC_ADDRESS_BITS-1:0] read_addresses,
    output logic [LANES*ACC_BITS-1:0] read_data,

    // The clocks that multiply, for whoever counts them. A layer is done: its last sum is stored at this clock's end.
    output logic multiplying,
    output logic layer_done
);
  logic is_end;
  logic [PART_BITS-1:0] part;
  logic [WEIGHT_BITS-1:0] column;
  logic [DELTA_BITS-1:0] delta;
  logic [GROUP_BITS-1:0] group;
  logic [GROUP_BITS-1:0] first_apart;
  logic [ACC_ADDRESS_BITS-1:0] address;
  logic last_group;

  logic valid;
  logic [DELTA_BITS-1:0] multiplied_delta;
  logic [ACC_ADDRESS_BITS-1:0] plain;
  logic [ACC_ADDRESS_BITS-1:0] apart;
  logic [LANES-1:0] is_apart;
  logic [LANES-1:0] group_apart;

  assign {is_end, part, column, delta} = event_data;

  assign last_group = group == core_config::PART_CLOCKS[part*GROUP_BITS+:GROUP_BITS] - 1'b1;
  assign first_apart = core_config::APART_GROUP[part*GROUP_BITS+:GROUP_BITS];
  assign address = core_config::PART_ACC[part*ACC_ADDRESS_BITS+:ACC_ADDRESS_BITS]
      + (COMPRESSED ? '0 : ACC_ADDRESS_BITS'(group));
  assign multiplying = event_waits && !is_end;
  assign event_taken = event_waits && (is_end || last_group);
  assign weight_address = column + WEIGHT_BITS'(group);

  always_ff @(posedge clock) begin
    if (reset) group <= '0;
    else if (multiplying) group <= last_group ? '0 : group + 1'b1;
  end

  // What a GRU's hidden state adds to its candidate is kept apart (M_nh): those rows have accumulators of their own.
  always_comb begin
    group_apart = '0;
    if (core_config::PART_APART[part] && group > first_apart) group_apart = '1;
    if (core_config::PART_APART[part] && group == first_apart)
      group_apart = {LANES{1'b1}} << core_config::APART_LANE[part*LANE_BITS+:LANE_BITS];
  end

  always_ff @(posedge clock) begin
    if (reset) begin
      valid <= 1'b0;
      layer_done <= 1'b0;
    end else begin
      valid <= multiplying;
      layer_done <= event_waits && is_end;
    end
  end

  always_ff @(posedge clock) begin
    multiplied_delta <= delta;
    plain <= address;
    apart <= address + core_config::APART_OFFSET[part*ACC_ADDRESS_BITS+:ACC_ADDRESS_BITS];
    is_apart <= group_apart;
  end

  generate
    for (genvar lane = 0; lane < LANES; lane++) begin : gen_lane
      logic [ENTRY_BITS-1:0] entry;
      logic [ACC_ADDRESS_BITS-1:0] row_address;
      assign entry = entries[lane*ENTRY_BITS+:ENTRY_BITS];
      // Where pruned weights are left out, the others come with their rows (CBCSC).
      if (COMPRESSED) begin : gen_compressed
        assign row_address = plain + ACC_ADDRESS_BITS'(entry[INDEX_BITS-1:0]);
      end else begin : gen_whole
        assign row_address = is_apart[lane] ? apart : plain;
      end
      product_lane lane_unit (
          .clock(clock),
          .reset(reset),
          .valid(valid),
          .delta(multiplied_delta),
          .weight(entry[ENTRY_BITS-1-:W_BITS]),
          .address(row_address),
          .preset(preset[lane]),
          .preset_address(preset_address),
          .preset_value(preset_value),
          .read_address(read_addresses[lane*ACC_ADDRESS_BITS+:ACC_ADDRESS_BITS]),
          .read_data(read_data[lane*ACC_BITS+:ACC_BITS])
      );
    end
  endgenerate

  logic unused;
  assign unused = COMPRESSED && &{1'b0, apart, is_apart};
endmodule

"""The drawing of docs/delta_core.md, from a trace to its lines."""

from docs import waveform

TRACE = """$scope module TOP $end
 $var wire 1 ! clock $end
 $scope module core $end
  $var wire 1 # busy $end
  $var wire 4 % word [3:0] $end
 $upscope $end
$upscope $end
$enddefinitions $end
#0
1!
0#
b0000 %
#1
0!
#2
1!
1#
b0010 %
#3
0!
b0000 %
#4
1!
#5
0!
#6
1!
0#
"""


def test_signals_are_sampled_at_rising_edges_and_drawn():
    names = {"busy": "TOP.core.busy", "word": "TOP.core.word"}
    waves = waveform.read_vcd(TRACE.splitlines(True), "TOP.clock", names.values())
    assert waves == {"TOP.core.busy": [False, True, True, False], "TOP.core.word": [False, True, False, False]}
    assert waveform.step_span(waves["TOP.core.busy"], 0) == (1, 3)
    drawn = waveform.draw({row: waves[name] for row, name in names.items()}, 0, 4)
    low, high = 2 * waveform.ROW - 4, 2 * waveform.ROW - 4 - waveform.HIGH
    steps = "".join(f"V{y}h{waveform.CLOCK}" for y in (low, high, high, low))
    assert f"M{waveform.NAMES} {low}{steps}" in drawn
    assert drawn.count("<text x") == 2

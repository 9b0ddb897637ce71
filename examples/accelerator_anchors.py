"""Published figures of the accelerators beside what the models give: prints the table of docs/hardware.md."""

import numpy as np

from deltarnn.hardware import DeltaRNNFPGA, EdgeDRNN, Spartus

Row = tuple[str, str, str, str]


def edgedrnn_rows() -> list[Row]:
    """JETCAS 2020: the 2L-768H network with 40 inputs, 9.8 % of the columns firing."""
    model, rng = EdgeDRNN(), np.random.default_rng(0)
    widths, sizes = (808, 1536), [768, 768]
    operations = 2 * 2304 * sum(widths)
    fired = [[np.sort(rng.choice(w, round(0.098 * w), replace=False)) + 1 for w in widths] for _ in range(200)]
    seconds = float(np.mean([model.cycles(40, sizes, step) for step in fired])) / model.clock_hz
    return [
        ("EdgeDRNN peak", "2 GOp/s", f"{model.peak_throughput_ops / 1e9:g} GOp/s", "D"),
        ("EdgeDRNN 2L-768H, nothing fires", "3 336 clocks", f"{model.cycles(40, sizes, [[], []])} clocks", "D"),
        ("EdgeDRNN 2L-768H, Γ = 90.2 %: latency", "about 0.5 ms (535 µs)", f"{seconds * 1e6:.1f} µs", "V"),
        ("EdgeDRNN 2L-768H, Γ = 90.2 %: effective", "20.2 GOp/s", f"{operations / seconds / 1e9:.2f} GOp/s", "V"),
    ]


def edgedrnn_networks() -> list[tuple[str, str, str, int, int]]:
    """Network, parameters, operations, dense clocks and activation clocks of HARDWARE's table, from the cycle model."""
    rows = []
    for hidden in (256, 512, 768):
        for layers in (1, 2):
            widths, sizes = [40 + hidden] + [2 * hidden] * (layers - 1), [hidden] * layers
            weights = 3 * hidden * sum(widths)
            activation = EdgeDRNN().cycles(40, sizes, [[]] * layers) - sum(width + 9 for width in widths)
            rows.append(
                (
                    f"{layers}L-{hidden}H",
                    f"{weights / 1e6:.3f} M",
                    f"{2 * weights / 1e6:.2f} M",
                    weights // 8,
                    activation,
                )
            )
    return rows


def deltarnn_rows() -> list[Row]:
    """FPGA 2018: one layer of 256 units, 40 inputs."""
    model = DeltaRNNFPGA()
    operations, dense = 2 * 768 * 296, model.cycles(40, [256], [range(296)])
    clocks = model.cycles(40, [256], [range(47)])
    return [
        ("DeltaRNN peak", "192 GOp/s", f"{model.peak_throughput_ops / 1e9:g} GOp/s", "D"),
        ("DeltaRNN dense step", "296 clocks, 2.37 µs", f"{dense} clocks, {dense / model.clock_hz * 1e6:.2f} µs", "D"),
        (
            "DeltaRNN, 47 of 296 columns fire",
            "1.2 TOp/s",
            f"{operations * model.clock_hz / clocks / 1e12:.2f} TOp/s",
            "V",
        ),
        ("DeltaRNN power", "164 GOp/s/W", f"{1.2e12 / model.power_w / 1e9:.0f} GOp/s/W", "V"),
    ]


def spartus_rows() -> list[Row]:
    """TNNLS 2022: one layer of 1024 units, 123 inputs, 4 of 64 weights kept."""
    model = Spartus()
    operations = 2 * 4096 * 1147
    ideal = operations / model.peak_throughput_ops
    pruned = model.cycles(123, [1024], [range(1147)]) / model.clock_hz
    both = model.cycles(123, [1024], [range(0, 256, 8)]) / model.clock_hz
    return [
        ("Spartus peak", "204.8 GOp/s", f"{model.peak_throughput_ops / 1e9:g} GOp/s", "D"),
        ("Spartus, operations per step", "9.396 MOp", f"{operations / 1e6:.3f} MOp", "D"),
        ("Spartus, no sparsity, at peak", "45.9 µs", f"{ideal * 1e6:.1f} µs", "D"),
        (
            "Spartus, CBTD alone",
            "3.24 µs, 2.90 TOp/s",
            f"{pruned * 1e6:.2f} µs, {operations / pruned / 1e12:.2f} TOp/s",
            "D",
        ),
        (
            "Spartus, 32 columns in the busiest array",
            "1 µs, 9.4 TOp/s",
            f"{both * 1e6:g} µs, {operations / both / 1e12:.2f} TOp/s",
            "V",
        ),
        ("Spartus over its peak", "46 ×", f"{ideal / both:.1f} ×", "V"),
    ]


if __name__ == "__main__":
    print("| figure | paper | model | mark |\n|---|---|---|---|")
    for row in edgedrnn_rows() + deltarnn_rows() + spartus_rows():
        print(f"| {' | '.join(row)} |")
    print("\n| network (I = 40) | weights | operations | dense clocks | activation clocks |\n|---|---|---|---|---|")
    for network in edgedrnn_networks():
        print(f"| {' | '.join(map(str, network))} |")

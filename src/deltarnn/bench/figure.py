"""The engine's benchmark as a picture: time per step against sparsity, one panel per cell and size."""

from pathlib import Path
from typing import Any

from deltarnn.files import replacing

FLOAT32, INT8, PEER, FLOOR = "#1f6feb", "#d1480f", "#57606a", "#8c959f"


def draw(results: list[Any], path: Path) -> None:
    """Write a PNG of `deltarnn.bench.engine.Result`s: rows are cells, columns sizes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = sorted({result.cell for result in results})
    columns = len(results) // len(cells)
    figure, axes = pyplot.subplots(len(cells), columns, figsize=(4.2 * columns, 3.6 * len(cells)), squeeze=False)
    for axis, result in zip(axes.flat, results, strict=True):
        for precision, colour in (("float32", FLOAT32), ("int8", INT8)):
            cases = sorted((c for c in result.cases if c.precision == precision), key=lambda case: case.sparsity)
            x = [case.sparsity for case in cases]
            for mode, style in (("step", "o-"), ("run", "s:")):
                y = [getattr(case, mode).quartile * 1e6 for case in cases]
                axis.plot(x, y, style, color=colour, markersize=4, label=f"engine {precision} {mode}")
            if precision == "float32":
                floor = [case.floor * 1e6 for case in cases]
                axis.plot(x, floor, "--", color=FLOOR, linewidth=1, label="reading the fired columns, float32")
        for name, style in (("onnxruntime one frame, 1 thread", "-"), ("onnxruntime 100 steps, 1 thread", "--")):
            axis.axhline(result.peers[name].quartile * 1e6, color=PEER, linestyle=style, linewidth=1.2, label=name)
        axis.set(title=result.name, xlabel="fraction of deltas equal to 0", yscale="log")
        axis.grid(alpha=0.3, which="both")
    for row in axes:
        row[0].set_ylabel("µs per step")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    with replacing(path) as part:
        figure.savefig(part, dpi=110)
    pyplot.close(figure)

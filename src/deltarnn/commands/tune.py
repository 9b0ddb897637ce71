"""`deltarnn tune`: thresholds within a loss budget, for an ONNX file or a torch module."""

import argparse
from pathlib import Path

from deltarnn.commands.inputs import WHERE_DATA, WHERE_MODEL, delta_name, function_of, load_items, load_model
from deltarnn.files import check_writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--model", required=True, help=f"{WHERE_MODEL}; also the first argument, without --model")
    parser.add_argument("--calibration", nargs="+", required=True, help=WHERE_DATA)
    parser.add_argument(
        "--held_out", nargs="+", help="held-out data, in the same forms; default: a part of --calibration"
    )
    parser.add_argument(
        "--loss",
        help="file.py:function of the model and the items, that returns a number; default: distance to dense outputs",
    )
    parser.add_argument("--budget", type=float, default=0.01, help="how much the loss may rise (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="precision of the tuned network (default: %(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("tuned"), help="folder for the results (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Tune, print the report, write it with the curve and, of an ONNX file, the file with its thresholds."""
    from deltarnn.adapt import tune

    check_writable(arguments.output)
    model = load_model(arguments.model)
    calibration = load_items("--calibration", arguments.calibration, model)
    held_out = load_items("--held_out", arguments.held_out, model) if arguments.held_out else None
    loss = function_of("--loss", arguments.loss) if arguments.loss else None
    tuned = tune(model, calibration, loss, arguments.budget, held_out=held_out, precision=arguments.precision)
    print(tuned)
    arguments.output.mkdir(parents=True, exist_ok=True)
    tuned.save(arguments.output / "tuned.json")
    tuned.plot(arguments.output / "curve.png")
    written = ["tuned.json", "curve.png"]
    if arguments.model.endswith(".onnx"):
        written.append(delta_name(arguments.model))
        tuned.model.save(arguments.output / written[-1])
    print(f"\nwritten: {', '.join(str(arguments.output / name) for name in written)}")
    return 0

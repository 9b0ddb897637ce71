"""`deltarnn distill`: fine-tuning towards the dense network's own outputs, for an ONNX file or a torch module."""

import argparse
from pathlib import Path
from typing import Any

from deltarnn.commands.inputs import WHERE_DATA, WHERE_MODEL, delta_name, load_items, load_model
from deltarnn.files import check_writable, read_json, replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--model", required=True, help=f"{WHERE_MODEL}; also the first argument, without --model")
    parser.add_argument("--sequences", nargs="+", required=True, help=WHERE_DATA)
    parser.add_argument(
        "--thresholds", help="a number, or the tuned.json of `deltarnn tune`; default: those of the file or module"
    )
    parser.add_argument("--epochs", type=int, default=20, help="passes over the sequences (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-4, help="learning rate at the start (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of sequences (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("distilled"), help="folder for the results (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, and write the ONNX file with its new weights, or the module's state_dict as safetensors."""
    from deltarnn.adapt import distill

    check_writable(arguments.output)
    model = load_model(arguments.model)
    sequences = load_items("--sequences", arguments.sequences, model)
    checkpoint = arguments.output / "checkpoint.safetensors"
    student = distill(
        model,
        sequences,
        thresholds=_thresholds(arguments.thresholds),
        epochs=arguments.epochs,
        lr=arguments.lr,
        seed=arguments.seed,
        checkpoint=checkpoint,
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.model.endswith(".onnx"):
        path = arguments.output / delta_name(arguments.model)
        student.save(path)
    else:
        from safetensors.torch import save_file

        path = arguments.output / "weights.safetensors"
        with replacing(path) as part:
            save_file({name: value.contiguous() for name, value in student.state_dict().items()}, part)
    print(f"written: {path}")
    return 0


def _thresholds(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        record = read_json(Path(text))
    if not isinstance(record, dict) or "thresholds" not in record:
        raise ValueError(f"--thresholds {text}: must be a number, or the tuned.json of `deltarnn tune`")
    return {name: [tuple(pair) for pair in pairs] for name, pairs in record["thresholds"].items()}

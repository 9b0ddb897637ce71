"""The command `deltarnn`, and `python main.py`: each command's module is imported when it is called.

A command's module offers `add_arguments(parser)` and `run(arguments) -> int`. The four steps share one set of flags
(`deltarnn.kws.config.command_line`): their modules offer a function of the step's name that takes the `Config`.

Little is imported before `main`: Ctrl-C within it ends in one line.
"""

import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

COMMANDS = {
    "prepare": ("deltarnn.kws.commands.data", "list the clips of a data set: groups, labels, silence, noise"),
    "feature": ("deltarnn.kws.commands.data", "compute the features of every clip"),
    "resynthesise": ("deltarnn.kws.commands.resynthesise", "reconstruct recordings from log-mel levels"),
    "pretrain": ("deltarnn.kws.commands.train", "train the dense GRU or LSTM"),
    "retrain": ("deltarnn.kws.commands.train", "train the delta network, from the pretrained one"),
    "predict": ("deltarnn.kws.commands.predict", "name the word in each recording"),
    "evaluate": ("deltarnn.kws.commands.evaluate", "accuracy, confusion and sparsity of a trained model"),
    "listen": ("deltarnn.kws.commands.listen", "keywords as they are spoken: from a microphone, files, or a pipe"),
    "sweep": ("deltarnn.kws.commands.sweep", "accuracy against sparsity over a grid of thresholds"),
    "export": ("deltarnn.kws.commands.export", "write a model as C, SystemVerilog, memory images or a web page"),
    "rtl": ("deltarnn.commands.rtl", "simulate or synthesise the SystemVerilog of an exported model"),
    "estimate": ("deltarnn.kws.commands.estimate", "latency and throughput of a trained model on accelerators"),
    "import": ("deltarnn.onnx.command", "import an ONNX network: its recurrent parts as delta layers"),
    "tune": ("deltarnn.commands.tune", "find thresholds for a pretrained network, ONNX or torch, within a loss budget"),
    "distill": ("deltarnn.commands.distill", "fine-tune a delta network towards its dense outputs, without labels"),
    "bench": ("deltarnn.bench", "time the engine, training, the GPU, or an imported ONNX network on this machine"),
}
SPINS = "200"
"""How often an idle thread of torch's OpenMP looks for work before it sleeps, some 0.01 ms. By default it spins for
milliseconds, in which another process could use the core (docs/training.md)."""

STEP_COMMANDS = ("prepare", "feature", "pretrain", "retrain")
PASSING_COMMANDS = (
    "resynthesise",
    "predict",
    "evaluate",
    "listen",
    "export",
    "rtl",
    "estimate",
    "import",
    "tune",
    "bench",
)
"""They start over after Ctrl-C; the others resume."""
MODEL_COMMANDS = ("evaluate", "sweep", "export", "estimate", "tune", "distill")
"""Their first argument may be the model file, without --model."""
EXPECTED = (ValueError, OSError, ModuleNotFoundError)
"""Errors whose message says all that a user needs, beside this package's own classes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0, 1 on an error (one line on stderr), 2 on wrong usage, 130 on Ctrl-C, 141 where
    whoever read the output left before its end (`| head`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch is loaded
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # a service without one, or >&-
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console without Δ gets its code, not an exception; a log file has every line at once, as a console does.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    pressed: list[int] = []
    try:
        with _plain_warnings(), _noted_ctrl_c(pressed):
            status = _run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except MemoryError:
        print("error: out of memory: ask for less, such as smaller sizes or fewer --workers", file=sys.stderr)
        return 1
    except Exception as error:
        if pressed:
            return _interrupted(arguments)
        if isinstance(error, BrokenPipeError) and _reader_left():
            _forget_output()
            return 141
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            _forget_output()
            error = OSError(f"standard output: {error.strerror}")  # files would be named: `deltarnn.files`
        if not isinstance(error, EXPECTED) and not type(error).__module__.startswith("deltarnn."):
            raise  # a defect of ours: its traceback is wanted
        from deltarnn.files import sentence

        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1


def _interrupted(arguments: list[str]) -> int:
    goes_on = arguments[:1] not in [[command] for command in PASSING_COMMANDS]
    print("interrupted" + "; the same command goes on where it stopped" * goes_on, file=sys.stderr)
    return 130


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS and arguments[0] not in STEP_COMMANDS:
        return _run_command(arguments[0], arguments[1:])
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        print(f"deltarnn {version('deltarnn')}")
        return 0
    if not arguments or (arguments[0] in ("-h", "--help") and not sys.argv[0].endswith("main.py")):
        return _print_commands()
    return _run_steps(arguments)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """A UserWarning is for the user: its sentence, without the line of ours that it came from."""
    usual = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category is UserWarning:
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def _noted_ctrl_c(pressed: list[int]) -> Iterator[None]:
    """Add each Ctrl-C to `pressed`: of its exception, modules in C that are being imported make errors of their own."""
    import signal

    def note(number: int, _: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not ignored, as in the background
    with suppress(ValueError):  # in a thread, which gets no signals
        if usual:
            signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _forget_output() -> None:
    """Let what Python still holds of the output, and writes at its end, go nowhere."""
    with suppress(io.UnsupportedOperation):  # no file of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_left() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    import select

    if not hasattr(select, "poll"):
        return False
    watch = select.poll()
    watch.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def _print_commands() -> int:
    width = max(map(len, COMMANDS))
    print("usage: deltarnn COMMAND [flags]      (deltarnn COMMAND --help explains the flags)\n")
    for name, (_, what) in COMMANDS.items():
        print(f"  {name:{width}}  {what}")
    print("\nA first keyword spotter: prepare --dataset synth, then feature, pretrain and retrain with the same flag.")
    return 0


def _run_command(name: str, arguments: list[str]) -> int:
    module = import_module(COMMANDS[name][0])
    from deltarnn.kws.config.arguments import Parser

    parser = Parser(prog=f"deltarnn {name}", description=_description(name))
    # A module that serves several commands tells their flags apart by this name.
    parser.set_defaults(command=name)
    module.add_arguments(parser)
    if name in MODEL_COMMANDS and arguments and not arguments[0].startswith("-"):
        arguments = ["--model", *arguments]
    return int(module.run(parser.parse_intermixed_args(arguments)))


def _description(name: str) -> str:
    what = COMMANDS[name][1]
    return f"{what[0].upper()}{what[1:]}."


def _run_steps(arguments: list[str]) -> int:
    from deltarnn.files import remove_leftovers
    from deltarnn.kws.config.arguments import nearest
    from deltarnn.kws.config.command_line import parse_arguments

    if arguments[0] not in STEP_COMMANDS and not arguments[0].startswith("-"):
        raise ValueError(
            f"{arguments[0]!r} is no command; there are {', '.join(COMMANDS)}{nearest(arguments[0], COMMANDS)}"
        )
    if arguments[0] in STEP_COMMANDS:
        if "--step" in arguments or any(argument.startswith("--step=") for argument in arguments):
            raise ValueError(f"`deltarnn {arguments[0]}` names the step already: leave --step out")
        config = parse_arguments(["--step", *arguments], f"deltarnn {arguments[0]}", _description(arguments[0]))
    else:
        config = parse_arguments(arguments)
    for warning in (*config.notes, *config.idle_flags()):
        print(f"warning: {warning}", file=sys.stderr)
    for kind in ("data", "feat", "log", "save"):
        remove_leftovers(config.folder(kind))
    for step in config.steps:
        getattr(import_module(COMMANDS[step][0]), step)(config)
    return 0

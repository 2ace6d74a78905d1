"""Options that several verbs share, in Caffe's spellings: ``-solver F``, ``--solver F``, ``-solver=F``, ``--solver=F``."""

from __future__ import annotations

import argparse
from typing import Any

from paratrain.backends import BACKEND_VARIABLE, BACKENDS, DEFAULT_BACKEND, PRECISION_VARIABLE, PRECISIONS
from paratrain.data.options import BAD_RECORD_MODES, DataOptions
from paratrain.errors import SnapshotError
from paratrain.net import CopyRules, Net
from paratrain.proto import NetState
from paratrain.snapshot import load_all_weights, split_weights

__all__ = [
    "add",
    "add_copying",
    "add_data",
    "add_devices",
    "add_filters",
    "add_input_shape",
    "add_iterations",
    "add_model",
    "add_python",
    "check_model",
    "copy_rules",
    "data_options",
    "load_all",
    "new_parser",
    "positive",
    "seed",
    "set_state",
    "weight_files",
]


def new_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    verb: str,
    summary: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Return the parser of a verb, whose help ends with worked ``examples``."""
    return subparsers.add_parser(
        verb,
        help=summary,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add(parser: argparse._ActionsContainer, name: str, **settings: Any) -> None:
    """Add an option with one dash and with two."""
    parser.add_argument(f"-{name}", f"--{name}", **settings)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the net prototxt: as it is, or in Caffe's spelling."""
    parser.add_argument("file", nargs="?", metavar="MODEL", help="the net prototxt")
    add(parser, "model", metavar="MODEL", help="the net prototxt, in Caffe's spelling")


def check_model(arguments: argparse.Namespace) -> None:
    """Leave with a usage message unless the net prototxt is given, once."""
    if (arguments.file is None) == (arguments.model is None):
        arguments.parser.error(f"give the net prototxt, once: paratrain {arguments.verb} -model net.prototxt")


def add_iterations(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``-iterations``, which has Caffe's default."""
    add(parser, "iterations", type=positive, default=50, metavar="N", help=f"{meaning} (default: 50)")


def add_copying(parser: argparse.ArgumentParser) -> None:
    """Add ``--rename`` and ``--allow-mismatch``, which say how weights are copied."""
    parser.add_argument(
        "--rename",
        action="append",
        type=_rename,
        default=[],
        metavar="OLD:NEW",
        help="take the weights of layer OLD for layer NEW of the net; may be given several times",
    )
    parser.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="leave out layers whose shapes are not those of the weights, instead of stopping",
    )


def copy_rules(arguments: argparse.Namespace) -> CopyRules:
    """What ``--rename`` and ``--allow-mismatch`` say. Raises SnapshotError for names that are given twice."""
    for side, names in enumerate(zip(*arguments.rename, strict=True)):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SnapshotError(f"--rename names '{twice}' twice as the {('old', 'new')[side]} layer; give it once")
    return CopyRules(dict(arguments.rename), arguments.allow_mismatch)


def _rename(text: str) -> tuple[str, str]:
    old, colon, new = text.partition(":")
    if not (old and colon and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not like fc8:fc8_new")
    return old, new


def add_devices(parser: argparse.ArgumentParser, gpu_help: str) -> None:
    """Add ``-gpu``, ``--cpu``, ``--backend``, ``--precision``, ``--fast`` and ``--autotune``."""
    add(parser, "gpu", metavar="0,1|all", help=gpu_help)
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU, whatever the solver says")
    parser.add_argument(
        "--backend",
        choices=BACKENDS.names(),
        help=f"what computes (default: {DEFAULT_BACKEND}, or what the environment variable {BACKEND_VARIABLE} names); numpy "
        "where it cannot be used",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="the numbers that are multiplied, and kept between layers; sums, parameters, gradients of parameters and updates "
        "are float32 with each. The CPU has float32 and bfloat16, GPUs have all (default: float32, or what the environment "
        f"variable {PRECISION_VARIABLE} names)",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="on a GPU: take faster kernels whose results differ in their last bits from run to run",
    )
    parser.add_argument(
        "--autotune",
        action="store_true",
        help="on a GPU: measure cuDNN's kernels when a shape first comes, and keep the quickest for this and later runs",
    )


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add ``-level`` and ``-stage``, which choose layers by their include and exclude rules."""
    add(parser, "level", type=int, default=0, metavar="N", help="the net state's level (default: 0)")
    add(parser, "stage", type=_words, default=[], metavar="A,B", help="the net state's stages")


def add_input_shape(parser: argparse.ArgumentParser) -> None:
    """Add ``--input-shape``, for data that is not there."""
    parser.add_argument(
        "--input-shape",
        action="append",
        type=_named_shape,
        default=[],
        metavar="BLOB=N,C,H,W",
        help="the shape of a blob that a data layer makes, for data that is not there; may be given several times",
    )


def _named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.partition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not name or not shape or any(size < 1 for size in shape):
        raise argparse.ArgumentTypeError(f"{text!r} is not like data=64,3,224,224")
    return name, shape


def add_python(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow-python``, without which layers of type Python are refused."""
    parser.add_argument(
        "--allow-python", action="store_true", help="let layers of type Python run the code that the net names"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-workers``, ``--on-bad-record`` and ``--data-timeout``, which say how records are read ahead."""
    parser.add_argument(
        "--data-workers",
        type=positive,
        metavar="N",
        help="threads of each rank that decode and transform records ahead of time, for each data layer (default: one less "
        "than the cores of this rank, at least 1)",
    )
    parser.add_argument(
        "--on-bad-record",
        choices=BAD_RECORD_MODES,
        default=DataOptions.on_bad_record,
        help="what follows a record that cannot be used: stop (default), or skip it, and the next good one takes its place",
    )
    parser.add_argument(
        "--data-timeout",
        type=_seconds,
        default=DataOptions.time_limit_s,
        metavar="SECONDS",
        help=f"stop when reading one record takes so long (default: {DataOptions.time_limit_s:g})",
    )


def data_options(arguments: argparse.Namespace, worker_count: int) -> DataOptions:
    """What ``--data-workers``, ``--on-bad-record`` and ``--data-timeout`` say; ``worker_count`` is the default."""
    return DataOptions(
        arguments.data_workers or worker_count,
        arguments.on_bad_record,
        arguments.data_timeout,
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds above 0")
    return value


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def seed(text: str) -> int:
    """A whole number from 0 on, for argparse."""
    value = int(text)
    if not 0 <= value < 1 << 63:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to {(1 << 63) - 1}")
    return value


def set_state(state: NetState, arguments: argparse.Namespace) -> None:
    """Put the values of ``-level`` and ``-stage``, where they are given, into a net state."""
    if arguments.level:
        state.level = arguments.level
    if arguments.stage:
        state.stage.extend(arguments.stage)


def weight_files(weights: str) -> list[str]:
    """The paths in the list that ``-weights`` gives. Raises SnapshotError for an empty one."""
    paths = split_weights(weights)
    if not paths:
        raise SnapshotError("-weights is empty; give the path of a caffemodel, or several with commas between them")
    return paths


def load_all(net: Net, weights: str, rules: CopyRules) -> None:
    """Copy the weights of a comma-separated list of files into ``net``. Raises SnapshotError."""
    load_all_weights(net, weight_files(weights), rules)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]

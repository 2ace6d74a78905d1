"""What the verbs that make databases share: options as gflags takes them, signals, and the line at the end.

gflags takes ``-flag=value``, ``--flag=value``, ``-flag value`` and ``--flag value``; of a boolean ``--flag``, ``--noflag`` and
``--flag=true``, but never a value after a space.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import types
from collections.abc import Iterator

from paratrain.launch import options
from paratrain.log import init_log
from paratrain.tools.databases import BACKENDS, stored_bytes
from paratrain.tools.imageset import ImageSettings
from paratrain.tools.work import Work

__all__ = [
    "add_backend",
    "add_bad_record",
    "add_boolean",
    "add_seed",
    "add_sizes",
    "add_threads",
    "image_settings",
    "report",
    "tool_run",
]

_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")


def add_boolean(parser: argparse._ActionsContainer, name: str, meaning: str) -> None:
    """Add a boolean flag, off by default, in every spelling of gflags."""
    parser.add_argument(f"-{name}", f"--{name}", action="store_true", help=meaning)
    for words, action in ((_TRUE, "store_true"), (_FALSE, "store_false")):
        spellings = [f"{dash}{name}={each}" for dash in ("-", "--") for word in words for each in (word, word.title())]
        spellings += [f"-no{name}", f"--no{name}"] if action == "store_false" else []
        unique = list(dict.fromkeys(spellings))
        parser.add_argument(*unique, dest=name, action=action, default=False, help=argparse.SUPPRESS)


def add_backend(parser: argparse.ArgumentParser, *, default: str | None = "lmdb") -> None:
    """Add ``-backend``; where ``default`` is None, what the database looks like."""
    shown = default or "what the folder looks like"
    options.add(
        parser,
        "backend",
        choices=BACKENDS,
        default=default,
        help=f"the kind of database, lmdb or leveldb (default: {shown})",
    )


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add Caffe's flags that say how images are stored."""
    add_boolean(parser, "gray", "store images in one channel, gray")
    for side in ("width", "height"):
        options.add(
            parser, f"resize_{side}", type=int, default=0, metavar="N", help=f"the {side} that images are resized to"
        )
    add_boolean(parser, "check_size", "stop at an image of another size than the first")
    add_boolean(parser, "encoded", "store images compressed: files as they are, unless they are resized")
    options.add(
        parser,
        "encode_type",
        default="",
        metavar="TYPE",
        help="compress images as this type (png, jpg ...), which implies -encoded",
    )


def image_settings(arguments: argparse.Namespace) -> ImageSettings:
    """What the flags of :func:`add_sizes` say; sizes below 0 count as 0, as in Caffe."""
    return ImageSettings(
        gray=arguments.gray,
        height=max(arguments.resize_height, 0),
        width=max(arguments.resize_width, 0),
        encoded=arguments.encoded,
        encode_type=arguments.encode_type,
    )


def add_bad_record(parser: argparse.ArgumentParser) -> None:
    """Add ``--on-bad-record``, which is skip by default, as Caffe does."""
    parser.add_argument(
        "--on-bad-record",
        choices=("skip", "stop"),
        default="skip",
        help="what to do with an image that cannot be read (default: skip it, say so, and count it)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads`` and, hidden, the flags of glog that scripts for Caffe give: the log goes to stderr in any case."""
    parser.add_argument(
        "--threads", type=options.positive, metavar="N", help="threads that decode images (default: one for each core)"
    )
    for name in ("logtostderr", "alsologtostderr"):
        for spelling in (name, f"{name}=1", f"{name}=true"):
            parser.add_argument(f"-{spelling}", f"--{spelling}", action="store_true", dest=name, help=argparse.SUPPRESS)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``, on which every random order depends."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="what random orders depend on (default: 0)")


@contextlib.contextmanager
def tool_run() -> Iterator[None]:
    """Send the log to stderr; let SIGTERM end the run as SIGINT does, so that nothing unfinished is left."""
    init_log()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end(number: int, _frame: types.FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # nothing interrupts the tidying up
    print("paratrain: ended by SIGTERM; nothing unfinished is left", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)


def report(work: Work, path: str) -> None:
    """Print what was written, how large it is, and how fast it went."""
    print(f"written to {path}: {work.speed()}, {stored_bytes(path):,} bytes")

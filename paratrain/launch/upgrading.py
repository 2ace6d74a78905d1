"""What ``upgrade_net`` and ``upgrade_solver`` share: an old file in, today's file out, of the same kind, text or binary."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from paratrain.errors import ParatrainError, PrototxtError, SnapshotError
from paratrain.launch import options
from paratrain.proto import (
    describe_content,
    format_prototxt,
    read_binary,
    read_prototxt,
    write_atomically,
    write_binary,
)

__all__ = ["add_parser", "upgrade_file"]

AnyMessage = TypeVar("AnyMessage", bound=Message)
Report = Callable[[str], None]
Upgrade = Callable[[AnyMessage, Report], AnyMessage]

_BEGINNING_BYTES = 4096


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    verb: str,
    what: str,
    examples: str,
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add one of the two verbs."""
    parser = options.new_parser(
        subparsers,
        verb,
        f"bring an old {what} file to today's form",
        f"Read a {what} file of any age and write it in today's form, as Caffe upgrades it. A text file becomes a text "
        "file (without its comments), a binary one a binary one. OUT is whole or not there; to replace a file by its "
        "upgrade, give its path twice.",
        examples,
    )
    parser.add_argument("input", metavar="IN", help="the old file")
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.set_defaults(run=run, parser=parser)


def upgrade_file(
    input_path: str, output_path: str, message_type: type[AnyMessage], upgrade: Upgrade[AnyMessage]
) -> int:
    """Upgrade one file and print what was upgraded; return the exit code 0.

    Raises PrototxtError or SnapshotError for a file that cannot be read or written, and what ``upgrade`` raises.
    """
    _refuse_same_file(input_path, output_path)
    is_text = _is_text(input_path)
    message = read_prototxt(input_path, message_type) if is_text else read_binary(input_path, message_type)
    reports: list[str] = []
    try:
        upgraded = upgrade(message, reports.append)
    except ParatrainError as error:
        raise PrototxtError(str(error), input_path) from None
    if is_text:
        write_atomically(output_path, format_prototxt(upgraded).encode())
    else:
        write_binary(output_path, upgraded)
    for line in reports or ["nothing to upgrade: the file is in today's form"]:
        print(f"{input_path}: {line}")
    print(f"written to {output_path}")
    return 0


def _refuse_same_file(input_path: str, output_path: str) -> None:
    source, target = Path(input_path), Path(output_path)
    if input_path != output_path and source.exists() and target.exists() and source.samefile(target):
        raise SnapshotError(
            f"{output_path} is the same file as {input_path}; to replace it by its upgrade, give the same path twice"
        )


def _is_text(path: str) -> bool:
    """Whether to read the file as text; what cannot be opened counts as text, whose reader says what is wrong."""
    try:
        with Path(path).open("rb") as stream:
            return describe_content(stream.read(_BEGINNING_BYTES)) in ("a text file", "an empty file")
    except OSError:
        return True

"""Caffe's binary files: caffemodel, solverstate, binaryproto. Reading says what is wrong with a file; writing is atomic."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from paratrain.errors import SnapshotError
from paratrain.proto.content import describe_content, disagreement
from paratrain.proto.schema import descriptor_of, missing_fields
from paratrain.proto.wire import LARGEST_BYTES, fields

__all__ = ["read_binary", "replace_atomically", "write_atomically", "write_binary", "write_pieces"]

AnyMessage = TypeVar("AnyMessage", bound=Message)

_TOO_LARGE = (
    "{path}: a {name} of {size:,} bytes; in protobuf's binary format it has at most {largest:,}. "
    "Larger networks are stored as HDF5 (snapshot_format: HDF5)"
)


def read_binary(path: str | os.PathLike[str], message_type: type[AnyMessage]) -> AnyMessage:
    """Read a file that holds one message of ``message_type``.

    Fields that the schema does not have (a fork's) are kept as unknown fields. Raises SnapshotError naming the file, the wanted
    type and what the file holds, if it is missing, empty, cut off, too large (2 GiB) or something else.
    """
    file = Path(path)
    wanted = message_type.DESCRIPTOR.name
    try:
        size_bytes = file.stat().st_size
        if size_bytes > LARGEST_BYTES:
            raise SnapshotError(_TOO_LARGE.format(path=file, name=wanted, size=size_bytes, largest=LARGEST_BYTES))
        data = file.read_bytes()
    except FileNotFoundError:
        raise SnapshotError(f"{file}: no such file (looked up from {Path.cwd()}); expected a {wanted}") from None
    except IsADirectoryError:
        raise SnapshotError(f"{file}: is a folder{_folder_hint(file)}; expected a file that holds a {wanted}") from None
    except OSError as error:
        raise SnapshotError(f"{file}: cannot be read ({error.strerror}); expected a {wanted}") from None

    message = message_type()
    reason = disagreement(data, descriptor_of(message)) if data else None
    if data and reason is None:
        try:
            message.ParseFromString(data)
            return message
        except DecodeError:
            reason = "it cannot be decoded"
    missing_bytes = _missing_bytes(data)
    if missing_bytes:
        raise SnapshotError(
            f"{file}: cut off: {len(data):,} bytes are there and at least {missing_bytes:,} are missing; "
            f"expected a whole {wanted}. Copy it again, or go back to an earlier snapshot"
        )
    found = describe_content(data)
    because = f" ({reason})" if reason is not None and found.startswith("a binary file") else ""
    raise SnapshotError(f"{file}: expected a {wanted}, found {found}{because}")


def write_binary(path: str | os.PathLike[str], message: Message) -> None:
    """Write ``message`` to a file, all of it or nothing: an older file of the name stays until the new one is whole.

    Raises SnapshotError if the message is larger than 2 GiB, lacks a required field, or the file cannot be written.
    """
    name = message.DESCRIPTOR.name
    missing = missing_fields(message)
    if missing:
        raise SnapshotError(f"{path}: the {name} lacks required fields: {', '.join(missing)}")
    data = message.SerializeToString()
    if len(data) > LARGEST_BYTES:
        raise SnapshotError(_TOO_LARGE.format(path=path, name=name, size=len(data), largest=LARGEST_BYTES))
    write_atomically(path, data)


def write_pieces(path: str | os.PathLike[str], name: str, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a message that is serialized already, in pieces, as :func:`write_binary` does.

    Other threads go on while a large piece is written. ``name`` is the message's type. Raises SnapshotError.
    """
    parts = list(pieces)
    size_bytes = sum(len(part) for part in parts)
    if size_bytes > LARGEST_BYTES:
        raise SnapshotError(_TOO_LARGE.format(path=path, name=name, size=size_bytes, largest=LARGEST_BYTES))
    with _named(path, size_bytes), replace_atomically(path) as temporary, temporary.open("xb") as stream:
        for part in parts:
            stream.write(part)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, flush it to the disk, then rename it over ``path``.

    Nothing is left behind on failure. Raises SnapshotError, which says why.
    """
    with _named(path, len(data)), replace_atomically(path) as temporary, temporary.open("xb") as stream:
        stream.write(data)


@contextlib.contextmanager
def replace_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the name of a temporary file beside ``path``, for the block to write; then flush it to the disk and rename it.

    Where the block raises, the temporary file is removed and ``path`` stays as it was. Raises OSError.
    """
    file = Path(path)
    # Hidden, unique, and created with the permissions that the umask gives to any file.
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _flush_folder(file.parent)


@contextlib.contextmanager
def _named(path: str | os.PathLike[str], size_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SnapshotError(
            f"{Path(path)}: cannot be written ({error.strerror}); {size_bytes:,} bytes were to go there"
        ) from None


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut. Some file systems do not offer it; the file is whole in any case."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _folder_hint(folder: Path) -> str:
    if (folder / "data.mdb").exists():
        return " (an LMDB database)"
    if (folder / "CURRENT").exists():
        return " (a LevelDB database)"
    return ""


def _missing_bytes(data: bytes) -> int:
    """How many bytes lack at the end of the last field; 0 if none do, or if the data is not protobuf's at all."""
    stop = 0
    try:
        for field in fields(data):
            stop = field.stop
    except ValueError:
        return 0
    return max(0, stop - len(data))

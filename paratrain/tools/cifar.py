"""CIFAR's binary files as databases of Datums, as Caffe's convert_cifar_data writes them.

The binary versions of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html) are records of fixed length: a
byte for the label (CIFAR-100: one for the coarse and one for the fine label), then 32 x 32 red, green and blue values.
Caffe's database has the channels in this order, red first, and the records in the order of the files.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from paratrain.data.database_writer import DatabaseWriter
from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.databases import create_database
from paratrain.tools.work import Work

__all__ = ["CIFAR10", "CIFAR100", "Cifar", "count_records", "find_cifar", "write_databases"]

logger = logging.getLogger(__name__)

_CHANNELS, _SIDE = 3, 32
_IMAGE_BYTES = _CHANNELS * _SIDE * _SIDE


@dataclass(frozen=True)
class Cifar:
    """One of the sets: its files, how many bytes of labels a record starts with, and how many records a file has."""

    name: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    label_bytes: int
    record_counts: dict[str, int]

    @property
    def record_bytes(self) -> int:
        """The length of a record."""
        return self.label_bytes + _IMAGE_BYTES


_TRAIN_10 = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR10 = Cifar("cifar10", _TRAIN_10, ("test_batch.bin",), 1, dict.fromkeys((*_TRAIN_10, "test_batch.bin"), 10_000))
CIFAR100 = Cifar("cifar100", ("train.bin",), ("test.bin",), 2, {"train.bin": 50_000, "test.bin": 10_000})


def find_cifar(folder: Path) -> Cifar:
    """Return which of the sets the folder holds. Raises DataError where files are missing."""
    for known in (CIFAR10, CIFAR100):
        found = [name for name in known.record_counts if (folder / name).is_file()]
        if len(found) == len(known.record_counts):
            return known
        if found:
            missing = [name for name in known.record_counts if name not in found]
            raise DataError(f"{folder}: {', '.join(missing)} of {known.name} is missing")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (looked up from {Path.cwd()})")
    hint = "; these are the files of the Python version: get the binary version"
    is_python = any((folder / name).is_file() for name in ("data_batch_1", "train"))
    raise DataError(
        f"{folder}: holds neither data_batch_1.bin to data_batch_5.bin and test_batch.bin (CIFAR-10) nor train.bin and "
        f"test.bin (CIFAR-100){hint if is_python else ''}"
    )


def count_records(folder: Path) -> int:
    """How many records the files of the folder hold, going by their lengths. Raises DataError where files are missing."""
    cifar = find_cifar(folder)
    return sum((folder / name).stat().st_size // cifar.record_bytes for name in cifar.record_counts)


def write_databases(
    folder: Path, output: Path, work: Work, *, backend: str = "lmdb", coarse: bool = False
) -> dict[Path, int]:
    """Write ``output``/cifar10_train_lmdb and cifar10_test_lmdb, or so; return how many records each has.

    Keys are ``%05d`` of the record's number. Of CIFAR-100 the fine label is taken, or the ``coarse`` one. Neither database
    takes its name before all files have been read. Raises DataError for files that are missing, cut or hold other labels.
    """
    cifar = find_cifar(folder)
    if coarse and cifar is CIFAR10:
        raise DataError(f"{folder}: CIFAR-10 has no coarse labels; leave out --coarse")
    train, test = (output / f"{cifar.name}_{part}_{backend}" for part in ("train", "test"))
    with contextlib.ExitStack() as stack:
        for path, names, what in ((train, cifar.train_files, "Training"), (test, cifar.test_files, "Testing")):
            database = stack.enter_context(create_database(path, backend))
            logger.info("Writing %s data", what)
            for name in names:
                _write_file(cifar, folder / name, database, work, coarse)
            if path == train:
                train_count = database.count
    return {train: train_count, test: database.count}


def _write_file(cifar: Cifar, file: Path, database: DatabaseWriter, work: Work, coarse: bool) -> None:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    count, rest = divmod(len(content), cifar.record_bytes)
    if rest or not count:
        raise DataError(
            f"{file}: has {len(content):,} bytes; expected records of {cifar.record_bytes:,} bytes. The file is cut or damaged"
        )
    if count != cifar.record_counts[file.name]:
        logger.warning("%s holds %d images; that of %s has %d", file, count, cifar.name, cifar.record_counts[file.name])
    class_count = 10 if cifar is CIFAR10 else 20 if coarse else 100
    datum = Datum(channels=_CHANNELS, height=_SIDE, width=_SIDE)
    for start in range(0, len(content), cifar.record_bytes):
        image = start + cifar.label_bytes
        label = content[start] if coarse else content[image - 1]
        if label >= class_count:
            number = start // cifar.record_bytes
            raise DataError(
                f"{os.fspath(file)}: record {number} has the label {label}; expected 0 to {class_count - 1}"
            )
        datum.label, datum.data = label, content[image : image + _IMAGE_BYTES]
        database.put(b"%05d" % database.count, datum.SerializeToString())
        work.advance()

"""Write scikit-learn's handwritten digits as two LMDBs of Datum records: `python -m paratrain.tools.digits FOLDER`.

The digits are the 1,797 of the UCI test set "Optical Recognition of Handwritten Digits", which scikit-learn carries in
its wheel: real handwriting, no download. Each is 8 x 8 with values 0 to 16. Here each pixel becomes 3 x 3 pixels, with
values 0 to 255, inside a border of 2, which makes the 28 x 28 that LeNet takes; nothing is smoothed or invented.

The first 1,500 digits are for training, in a shuffled order that is the same every time, since they come nearly in the
order 0, 1, 2 ... 9 and every second record would have only even ones. The last 297 are the test. The digits seem to be
ordered by writer, so that the test is mostly of hands that were not seen in training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paratrain.data import LmdbWriter
from paratrain.errors import MissingDependencyError, ParatrainError
from paratrain.proto import Datum

__all__ = ["TRAIN_COUNT", "enlarge", "load_digits", "main", "write_digits"]

TRAIN_COUNT = 1500
SIDE = 28

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, 28, 28) and labels (N,)."""


def enlarge(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Images (N, 8, 8) with values 0 to 16 as (N, 28, 28) with values 0 to 255."""
    values = np.rint(images * (255 / 16)).astype(np.uint8)
    border = (SIDE - 3 * values.shape[1]) // 2
    return np.pad(values.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (border, border), (border, border)))


def load_digits() -> tuple[Digits, Digits]:
    """The digits for training and those for the test. MissingDependencyError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "writing its handwritten digits", "demo") from error
    digits = load()
    images, labels = enlarge(digits.images), digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(TRAIN_COUNT)
    return (images[order], labels[order]), (images[TRAIN_COUNT:], labels[TRAIN_COUNT:])


def write_lmdb(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write one record per image (H, W) of `images`, under the keys 00000000, 00000001 ..., as Caffe's own tools do."""
    with LmdbWriter(path) as writer:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            height, width = image.shape
            datum = Datum(channels=1, height=height, width=width, data=image.tobytes(), label=int(label))
            writer.put(b"%08d" % index, datum.SerializeToString())


def write_digits(folder: Path) -> tuple[int, int]:
    """Write `folder`/digits_train_lmdb and `folder`/digits_test_lmdb; return how many records each holds."""
    train, test = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    write_lmdb(folder / "digits_train_lmdb", *train)
    write_lmdb(folder / "digits_test_lmdb", *test)
    return len(train[0]), len(test[0])


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m paratrain.tools.digits",
        description="Write scikit-learn's handwritten digits as LMDBs for training and testing.",
    )
    parser.add_argument("folder", type=Path, help="where digits_train_lmdb and digits_test_lmdb are written")
    options = parser.parse_args(arguments)
    try:
        train_count, test_count = write_digits(options.folder)
    except ParatrainError as error:
        print(f"digits: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {train_count} digits for training and {test_count} for the test to {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

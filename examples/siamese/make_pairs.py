"""Write databases of pairs of digits: `python examples/siamese/make_pairs.py`, from the root of the checkout.

From MNIST's 10,000 test digits, which lie in tests/data: pairs for training of the first 8,000, pairs for the test of the
last 2,000. A record is a picture of two channels, the two digits, and its label says whether they are of one class (1) or
not (0). Partners are drawn by chance, so that about one pair in ten is of one class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import paratrain as caffe
from paratrain.data import LmdbWriter
from paratrain.errors import ParatrainError
from paratrain.tools.mnist import read_digits

DATA = Path("tests/data")
RECORDS = {"train": (0, 8000), "test": (8000, 10_000)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write databases of pairs of digits.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo-output/siamese"))
    parser.add_argument("--pairs", type=int, default=8, help="pairs for each training digit (default: 8)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, (start, stop) in RECORDS.items():
        files = DATA / "t10k-images-idx3-ubyte.gz", DATA / "t10k-labels-idx1-ubyte.gz"
        images, labels = read_digits(*files, start, stop)
        count = len(images) * (options.pairs if part == "train" else 1)
        pairs = random.integers(len(images), size=(count, 2))
        path = options.folder / f"pairs_{part}_lmdb"
        with LmdbWriter(path) as database:
            for index, pair in enumerate(pairs):
                same = labels[pair[0]] == labels[pair[1]]
                datum = caffe.io.array_to_datum(images[pair], int(same))
                database.put(b"%08d" % index, datum.SerializeToString())
        same_count = np.count_nonzero(labels[pairs[:, 0]] == labels[pairs[:, 1]])
        print(f"{path}: {count:,} pairs, {same_count:,} of one class")


if __name__ == "__main__":
    try:
        main()
    except ParatrainError as error:  # databases that are there already, files that are not
        sys.exit(str(error))

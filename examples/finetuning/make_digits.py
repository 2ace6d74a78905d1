"""Write the databases of this example: `python examples/finetuning/make_digits.py`, from the root of the checkout.

From MNIST's 10,000 test digits, which lie in tests/data: of the first 8,000 the digits 0 to 4, all of them, and five of each
of the digits 5 to 9, labelled 0 to 4. The tests are of the last 2,000.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from paratrain.errors import ParatrainError
from paratrain.tools.digits import write_lmdb
from paratrain.tools.mnist import read_digits

DATA = Path("tests/data")
TRAIN_COUNT = 8000
FEW = 5


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the databases of the fine-tuning example.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo-output/finetuning"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = read_digits(DATA / "t10k-images-idx3-ubyte.gz", DATA / "t10k-labels-idx1-ubyte.gz")
    training = np.arange(len(images)) < TRAIN_COUNT
    few = np.concatenate([np.flatnonzero(training & (labels == digit))[:FEW] for digit in range(5, 10)])
    chosen = {
        "0_to_4_train": np.flatnonzero(training & (labels < 5)),
        "0_to_4_test": np.flatnonzero(~training & (labels < 5))[:1000],
        "5_to_9_train": few,
        "5_to_9_test": np.flatnonzero(~training & (labels >= 5))[:900],
    }
    for name, records in chosen.items():
        write_lmdb(folder / f"{name}_lmdb", images[records], labels[records].astype(np.int64) % 5)
        print(f"{folder / name}_lmdb: {len(records):,} digits")


if __name__ == "__main__":
    try:
        main()
    except ParatrainError as error:  # databases that are there already, files that are not
        sys.exit(str(error))

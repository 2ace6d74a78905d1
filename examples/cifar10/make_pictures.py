"""Write pictures of ten classes in the format of CIFAR-10's binary version: `python make_pictures.py FOLDER`.

For those who do not have CIFAR-10 at hand. A class is a shape (disc, ring, square, cross, triangle) in a family of colours
(reds and yellows, or blues and greens), at a random place and size, on a ground of a random colour, with noise over it all.
Neither the shape nor the colour alone gives the class. The same seed gives the same pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 32
CLASSES = [
    f"{colour} {shape}" for colour in ("warm", "cool") for shape in ("disc", "ring", "square", "cross", "triangle")
]
FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
NOISE = 40.0

Floats = NDArray[np.float32]


def outlines(shapes: NDArray[np.int64], x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which pixels of each picture (N, 32, 32) the shapes cover; they reach from -1 to 1 in x and y."""
    distance = np.hypot(x, y)
    far, near = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    covered = [
        distance < 1,
        (distance < 1) & (distance > 0.55),
        far < 0.9,
        (far < 1) & (near < 0.35),
        (y < 0.8) & (y > -0.9) & (abs(x) < (y + 0.9) * 0.6),
    ]
    return np.choose(shapes[:, None, None], covered)


def paint(labels: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.uint8]:
    """One picture (3, 32, 32) for each label, red first."""
    count = len(labels)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    radius = random.uniform(5, 11, (count, 1, 1)).astype(np.float32)
    middle = random.uniform(11, 21, (2, count, 1, 1)).astype(np.float32)
    shape = outlines(labels % 5, (columns - middle[0]) / radius, (rows - middle[1]) / radius)

    strong, weak = random.uniform(140, 255, count), random.uniform(0, 70, count)
    between = random.uniform(40, 180, count)
    warm, cool = np.stack([strong, between, weak], 1), np.stack([weak, between, strong], 1)
    colour = np.where((labels >= 5)[:, None], cool, warm).astype(np.float32)
    ground = random.uniform(30, 225, (count, 3)).astype(np.float32)

    pictures = np.where(shape[:, None], colour[:, :, None, None], ground[:, :, None, None])
    pictures += NOISE * random.standard_normal(pictures.shape, np.float32)
    return np.clip(pictures, 0, 255).astype(np.uint8)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write pictures of ten classes as CIFAR-10's binary version has them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10_000, help="pictures in each of the six files (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(options.seed)
    for name in FILES:
        labels = random.integers(len(CLASSES), size=options.count)
        records = np.empty((options.count, 1 + 3 * SIDE * SIDE), np.uint8)
        records[:, 0] = labels
        for start in range(0, options.count, 1000):
            part = slice(start, start + 1000)
            records[part, 1:] = paint(labels[part], random).reshape(-1, 3 * SIDE * SIDE)
        records.tofile(options.folder / name)
    (options.folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    print(f"Wrote {len(FILES)} files of {options.count:,} pictures to {options.folder}")


if __name__ == "__main__":
    main()

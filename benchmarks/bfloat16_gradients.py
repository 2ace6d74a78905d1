"""How far bfloat16 moves the gradients of deep nets, and which rounding does it; and what it does to 1,000 steps of LeNet.

    python benchmarks/bfloat16_gradients.py --peer-python python --save benchmarks/results/bfloat16_gradients.md

Beside the oneDNN backend and PyTorch's autocast computes a model, in which only the named values are rounded: see
``rounded_net.py``. Nets, weights and the first pair of images are those that BVLC Caffe's figures were recorded with
(``tests/golden``); other pairs of images are drawn alike. LeNet's part is ``bfloat16_training.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bfloat16_training import compare_training
from machine import REPOSITORY, describe

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy and oneDNN are loaded
    os.environ[variable] = "1"

FACTORS = frozenset({"bottoms", "weights", "top gradients"})
KEPT = FACTORS | {"tops", "bottom gradients"}
IMAGES = "the images, once"
MODELS: dict[str, frozenset[str]] = {
    IMAGES: frozenset({"images"}),
    "weights of convolutions": frozenset({"weights"}),
    "bottoms of convolutions": frozenset({"bottoms"}),
    "gradients of tops of convolutions": frozenset({"top gradients"}),
    "**these three: the factors of products**": FACTORS,
    "the three, up or down at random": FACTORS,
    "the three, and those of inner products": FACTORS | {"inner products"},
    "the three, and what convolutions write": KEPT,
    "these, and what other layers write": KEPT | {"others"},
    "these, and biases' gradients summed from rounded ones": KEPT | {"others", "biases"},
}
SMALLEST = 5e-3
"""The least gradient that counts, over the largest of its layer."""
HEAD = """
How far the norm of each parameter's gradient is from float32's (of the NumPy backend), in percent: how many by more than 1, the
largest and the root mean square, for the images of Caffe's figures, and the same for {others} other pairs of images;
the last column is how far apart the gradients themselves are, as vectors: the middle one's distance over its length.
Gradients below {smallest}% of the largest of their layer are left out: that of a bias in front of a BatchNorm should be 0.
Lines without a program's name are the model's, and say what it rounds. The three factors are all that products in bfloat16 cannot
do without. Where a net magnifies roundings the figures are chance: rounding the same values up or down at random draws again."""


def row(label: str, found: list[dict[str, tuple[float, float, float]]]) -> str:
    """A line of the table. ``found`` has for each pair of images and parameter: the norm, float32's, that of the difference."""
    cells, distances = [], []
    for norms in found:
        largest: dict[str, float] = {}
        for name, (_, expected, _) in norms.items():
            layer = name.rpartition("/")[0]
            largest[layer] = max(expected, largest.get(layer, 0.0))
        kept = [n for name, n in norms.items() if n[1] > SMALLEST * largest[name.rpartition("/")[0]]]
        off = [100 * abs(own / expected - 1) for own, expected, _ in kept]
        distances.append(statistics.median(100 * distance / expected for _, expected, distance in kept))
        mean_square = statistics.fmean(part**2 for part in off)
        above = sum(part > 1 for part in off)
        cells.append((f"{above} of {len(off)}", f"{max(off):.2f}", f"{math.sqrt(mean_square):.2f}"))
    others = [", ".join(other[column] for other in cells[1:]) for column in (1, 2)]
    distance = f"{statistics.fmean(distances):.2f}" if any(distances) else ""
    return f"| {label} | {' | '.join([*cells[0], *others])} | {distance} |"


def compare_net(name: str, pairs: int, peer_python: str | None) -> Iterator[str]:
    import numpy as np
    from rounded_net import Rounding, beside, gradients, norm, open_net

    from tests.integration.golden_nets import recorded_figures

    yield from ("", f"## {name}", "", "| | above 1 | largest | r.m.s. | largest, others | r.m.s., others | distance |")
    yield "|---|---|---|---|---|---|---|"
    net, rounding = open_net(name, "numpy", "float32"), Rounding()
    float32 = [gradients(net, pair) for pair in range(pairs)]
    recorded = recorded_figures(name)["TRAIN"]["dparam_l2"].items()
    caffe = {f"{layer}/{index}": value for layer, norms in recorded for index, value in enumerate(norms) if value}
    exact = {key: (norm(float32[0][key]), value, 0.0) for key, value in caffe.items() if key in float32[0]}
    for layer in net.layers:
        rounding.watch(layer)
    images, rounding.parts = net.blobs["data"].data, MODELS[IMAGES]
    moved = norm(rounding("images", images) - images) / norm(images)
    lines, models = [], []
    for label, rounding.parts in MODELS.items():
        rounding.random = np.random.default_rng(1) if "random" in label else None
        models = [gradients(net, pair, rounding) for pair in range(pairs)]
        what = f"{label}, which moves them by {100 * moved:.2f}%" if label == IMAGES else label
        lines.append(row(what, [beside(*both) for both in zip(models, float32, strict=True)]))
    net.close()
    yield row("float32 beside Caffe's own norms", [exact])
    for precision in ("float32", "bfloat16"):
        net = open_net(name, "onednn", precision)
        own = [gradients(net, pair) for pair in range(pairs)]
        yield row(f"paratrain, oneDNN, {precision}", [beside(*both) for both in zip(own, float32, strict=True)])
        net.close()
    if peer_python is not None:
        file = REPOSITORY / "tests" / "golden" / "nets" / f"{name}.prototxt"
        command = [peer_python, str(REPOSITORY / "benchmarks/peers/torch_gradients.py"), str(file), "10", str(pairs)]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        wide, narrow = [], []
        for line, expected in zip(printed, float32, strict=True):
            peer = {key: norms for key, norms in json.loads(line).items() if key in expected}
            wide.append({key: (norms[0], norm(expected[key]), 0.0) for key, norms in peer.items()})
            narrow.append({key: (norms[1], norms[0], norms[2]) for key, norms in peer.items()})
        yield row("PyTorch, float32", wide)
        yield row("PyTorch, autocast to bfloat16, beside its float32", narrow)
    yield from lines
    yield row("the last of these, beside paratrain", [beside(*both) for both in zip(models, own, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="lenet,caffenet,googlenet,resnet50")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of images, the recorded one among them")
    parser.add_argument("--steps", type=int, default=1000, help="of LeNet")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the tables to this file")
    options = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    head = HEAD.format(others=options.pairs - 1, smallest=100 * SMALLEST)
    text = "\n".join(["# Gradients and training in bfloat16 on the CPU, one thread", "", describe("ml_dtypes"), head])
    print(text, flush=True)
    sections = [compare_net(name, options.pairs, options.peer_python) for name in options.nets.split(",")]
    for lines in (*sections, compare_training(options.steps)):
        for line in lines:
            print(line, flush=True)
            text += f"\n{line}"
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()

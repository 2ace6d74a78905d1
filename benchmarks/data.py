"""Time how fast batches are prepared: JPEGs beside PyTorch's DataLoader, and raw MNIST from an LMDB.

    python benchmarks/data.py --peer-python python --save benchmarks/results/data.md

JPEG: 512 different crops of the two photographs that scikit-learn brings along, 256 x 256, are decoded, cropped to
224 x 224 at random, mirrored by chance, and the mean is subtracted, on the cores of ``--cores``. paratrain's Data layer
uses as many threads, PyTorch's DataLoader as many worker processes. ``--peer-python`` names a Python that has torch,
torchvision, Pillow, opencv-python-headless and lmdb; of the peer's variants (three decoders; floats made per image, per
batch, or in the main process) the three that are best in the first round go on, and the best counts. The sides take
turns, each in a process of its own.

MNIST: raw records of 28 x 28 bytes are read from an LMDB and scaled, on one core. Memory: what the process of the JPEG
side holds after epoch 1 and after epoch 20.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from machine import REPOSITORY, describe

if TYPE_CHECKING:
    from paratrain.net import Net

PEER = REPOSITORY / "benchmarks" / "peers" / "torch_data.py"
PEER_DECODERS = ("cv2", "PIL", "torchvision")
PEER_NORMALISE = ("image", "batch", "main")
SIZE, CROP = 256, 224
JPEG_NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { crop_size: %d mirror: true mean_value: 104 mean_value: 117 mean_value: 123 }
  data_param { source: "%s" backend: LMDB batch_size: %d } }
"""
MNIST_NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.00390625 } data_param { source: "%s" backend: LMDB batch_size: %d } }
"""


def make_databases(folder: Path, count: int) -> float:
    """Write ``jpeg`` (Datums), ``plain`` (the same JPEGs by themselves) and ``mnist``; return the JPEGs' mean bytes."""
    import numpy as np
    from sklearn.datasets import load_sample_images

    from paratrain.data import LmdbWriter, array_to_datum, images
    from paratrain.proto import Datum

    photos = [image[:, :, ::-1].transpose(2, 0, 1) for image in load_sample_images().images]  # B, G, R
    random = np.random.default_rng(1)
    sizes = []
    with LmdbWriter(folder / "jpeg") as database, LmdbWriter(folder / "plain") as plain:
        for i in range(count):
            photo = photos[i % len(photos)]
            side = int(random.integers(200, min(photo.shape[1:]) + 1))
            top, left = (int(random.integers(length - side + 1)) for length in photo.shape[1:])
            crop = np.ascontiguousarray(photo[:, top : top + side, left : left + side].transpose(1, 2, 0))
            jpeg = images.encode(images.resize(crop.transpose(2, 0, 1), SIZE, SIZE), "jpg")
            sizes.append(len(jpeg))
            plain.put(b"%08d" % i, jpeg)
            datum = Datum(channels=3, height=SIZE, width=SIZE, data=jpeg, label=i % 1000, encoded=True)
            database.put(b"%08d" % i, datum.SerializeToString())
    data = REPOSITORY / "tests" / "data"
    digits = np.frombuffer(gzip.open(data / "t10k-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    labels = gzip.open(data / "t10k-labels-idx1-ubyte.gz").read()[8:]
    with LmdbWriter(folder / "mnist") as database:
        for i, digit in enumerate(digits.reshape(-1, 1, 28, 28)):
            database.put(b"%08d" % i, array_to_datum(digit, labels[i]).SerializeToString())
    return statistics.mean(sizes)


def build(text: str, worker_count: int) -> Net:
    from google.protobuf import text_format

    from paratrain.backends import create_backend
    from paratrain.data.options import DataOptions
    from paratrain.layers.base import LayerContext
    from paratrain.net import Net
    from paratrain.proto import TRAIN, NetParameter

    options = DataOptions(worker_count=worker_count)
    return Net(
        text_format.Parse(text, NetParameter()), LayerContext(create_backend("numpy"), TRAIN, seed=1, data=options)
    )


def images_per_s(net: Net, batch: int, seconds: float) -> float:
    for _ in range(16):
        net.forward()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        net.forward()
        count += batch
    return count / (time.perf_counter() - begin)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def epochs_mb(net: Net, batch: int, record_count: int) -> tuple[float, float]:
    """The memory of this process after epoch 1 and after epoch 20."""
    marks = []
    for epoch in range(1, 21):
        for _ in range(record_count // batch):
            net.forward()
        if epoch in (1, 20):
            marks.append(resident_mb())
    return marks[0], marks[1]


def work(options: argparse.Namespace) -> None:
    """What a process of its own does: print its figures."""
    cores = len(os.sched_getaffinity(0))
    if options.work == "mnist":
        net = build(MNIST_NET % (options.path, options.batch), cores)
        print(images_per_s(net, options.batch, options.seconds))
    elif options.work == "jpeg":
        net = build(JPEG_NET % (CROP, options.path, options.batch), cores)
        print(images_per_s(net, options.batch, options.seconds))
    else:
        net = build(JPEG_NET % (CROP, options.path, options.batch), cores)
        print(*epochs_mb(net, options.batch, options.records))
    net.close()


def run(command: list[str], cores: set[int]) -> list[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout.split()


def variant_name(decoder: str, normalise: str) -> str:
    where = {"image": "each image", "batch": "each batch", "main": "in the main process"}[normalise]
    return f"DataLoader, {decoder}, mean: {where}"


def row(name: str, rates: list[float]) -> str:
    return f"| {name} | {min(rates):,.0f} | {statistics.median(rates):,.0f} | {max(rates):,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="cores for the JPEGs")
    parser.add_argument("--records", type=int, default=512, help="different JPEGs")
    parser.add_argument("--seconds", type=float, default=3, help="time of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--peer-python", help="a Python that has torch, torchvision, PIL, cv2 and lmdb")
    parser.add_argument("--save", help="also write the tables to this file")
    parser.add_argument("--work", choices=("jpeg", "mnist", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return

    sys.path.insert(0, str(REPOSITORY))
    own = [sys.executable, __file__, "--batch", str(options.batch), "--seconds", str(options.seconds)]
    own += ["--records", str(options.records)]
    cores = set(sorted(os.sched_getaffinity(0))[: options.cores])
    variants = [(d, n) for d in PEER_DECODERS for n in PEER_NORMALISE] if options.peer_python else []
    jpeg: dict[str, list[float]] = {"paratrain": []}
    mnist: list[float] = []
    peer_version = ""
    with tempfile.TemporaryDirectory() as folder:
        mean_bytes = make_databases(Path(folder), options.records)
        for number in range(options.rounds):
            if number == 1:  # the others have had their chance
                variants.sort(key=lambda variant: -jpeg[variant_name(*variant)][0])
                del variants[3:]
            [rate] = run([*own, "--work", "jpeg", "--path", f"{folder}/jpeg"], cores)
            jpeg["paratrain"].append(float(rate))
            for decoder, normalise in variants:
                settings = [f"{folder}/plain", "--decoder", decoder, "--normalise", normalise, "--crop", str(CROP)]
                settings += ["--batch", str(options.batch), "--seconds", str(options.seconds)]
                peer_version, rate = run([options.peer_python, str(PEER), *settings], cores)
                jpeg.setdefault(variant_name(decoder, normalise), []).append(float(rate))
            [rate] = run([*own, "--work", "mnist", "--path", f"{folder}/mnist"], {min(cores)})
            mnist.append(float(rate))
        first_mb, last_mb = map(float, run([*own, "--work", "memory", "--path", f"{folder}/jpeg"], cores))

    header = ["| images per second | min | median | max |", "|---|---|---|---|"]
    lines = [f"# Preparing batches of {options.batch}", "", describe("lmdb", "opencv-python-headless")]
    lines += [f"- PyTorch {peer_version}"] if variants else []
    lines += [
        "",
        f"## JPEG, {SIZE} x {SIZE}, {mean_bytes / 1000:.0f} kB each, cropped to {CROP}, {len(cores)} core(s)",
        "",
    ]
    lines += [*header, *(row(name, rates) for name, rates in jpeg.items())]
    if variants:
        medians = [statistics.median(rates) for rates in jpeg.values()]
        lines += ["", f"paratrain prepares {medians[0] / max(medians[1:]):.2f} times the best DataLoader's images."]
    lines += ["", "## Raw MNIST from an LMDB, one core", "", *header, row("paratrain", mnist)]
    lines += ["", f"## Memory\n\n{first_mb:.0f} MB after epoch 1, {last_mb:.0f} MB after epoch 20 of the JPEGs."]
    text = "\n".join(lines)
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()

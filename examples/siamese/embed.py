"""Put test digits at points of the plane with a trained siamese net, and draw them.

`python examples/siamese/embed.py WEIGHTS`, from the root of the checkout. Says how well classes lie apart: a digit counts as
right if the class whose middle, over the training digits, is nearest to its point is its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import paratrain as caffe
from paratrain.tools.mnist import read_digits

NET = "examples/siamese/mnist_siamese.prototxt"
FILES = "tests/data/t10k-images-idx3-ubyte.gz", "tests/data/t10k-labels-idx1-ubyte.gz"


def embed(net: caffe.Net, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The points (N, 2) of images (N, 28, 28), in batches as large as the net takes."""
    batch_size = net.blobs["data"].num
    points = []
    for start in range(0, len(images), batch_size):
        net.blobs["data"].data[...] = images[start : start + batch_size, None] * 0.00390625
        points.append(net.forward()["feat"].copy())
    return np.concatenate(points)


def draw(path: Path, points: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """A picture of the points in the colours of their classes, where matplotlib is installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: pip install 'paratrain[plot]'")
        return
    figure, axes = plt.subplots(figsize=(7, 7))
    for digit in range(10):
        axes.plot(*points[labels == digit].T, ".", color=f"C{digit}", label=str(digit))
    axes.legend(title="digit")
    axes.set_aspect("equal")
    figure.savefig(path)
    print(f"Drawn: {path}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Put digits at points of the plane with a trained siamese net.")
    parser.add_argument("weights", help="a caffemodel of mnist_siamese_train_test.prototxt")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-output/siamese/embedding.png"))
    options = parser.parse_args()
    net = caffe.Net(NET, options.weights, caffe.TEST)
    images, labels = read_digits(*FILES)
    points = embed(net, images)
    middles = np.stack([points[:8000][labels[:8000] == digit].mean(axis=0) for digit in range(10)])
    points, labels = points[8000:], labels[8000:]
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(axis=1)
    print(
        f"Nearest middle is that of the digit's class: {np.mean(nearest == labels):.1%} of {len(labels):,} test digits"
    )
    for digit in range(10):
        print(f"  {digit}: middle ({middles[digit][0]:6.2f}, {middles[digit][1]:6.2f})")
    draw(options.output, points, labels)


if __name__ == "__main__":
    main()

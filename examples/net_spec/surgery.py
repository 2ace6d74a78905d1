"""Net surgery: LeNet with its inner products made convolutions, which reads a strip of digits in one pass.

`python examples/net_spec/surgery.py`, after train.py. A convolution whose kernel covers all that the inner product sees
computes the same with the same values; on a wider image it does so at every place.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import paratrain as caffe
from paratrain import layers as L
from paratrain import params as P
from paratrain.tools.digits import load_digits

SIDE = 28
STRIDE = 4  # two poolings by two: how far apart two places of the output lie in the image


def convolutional(width: int, *, hidden: int) -> caffe.NetSpec:
    """LeNet on an image (1, 1, 28, `width`), with convolutions in place of the inner products."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, SIDE, width]))
    n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5)
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=50, kernel_size=5)
    n.pool2 = L.Pooling(n.conv2, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.ip1_conv = L.Convolution(n.pool2, num_output=hidden, kernel_size=4)
    n.relu1 = L.ReLU(n.ip1_conv, in_place=True)
    n.ip2_conv = L.Convolution(n.relu1, num_output=10, kernel_size=1)
    n.prob = L.Softmax(n.ip2_conv)
    return n


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Read a strip of digits with a net made convolutional.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo-output/net_spec"))
    folder = parser.parse_args().folder
    net = caffe.Net(str(folder / "deploy.prototxt"), str(folder / "lenet.caffemodel"), caffe.TEST)
    (_, _), (images, labels) = load_digits()
    strip = np.concatenate(list(images[:8]), axis=1) / np.float32(256)

    spec = convolutional(strip.shape[1], hidden=net.params["ip1"][0].shape[0])
    (folder / "convolutional.prototxt").write_text(str(spec.to_proto()))
    wide = caffe.Net(str(folder / "convolutional.prototxt"), caffe.TEST)
    wide.copy_from(str(folder / "lenet.caffemodel"))  # the layers whose names have stayed
    for old, new in (("ip1", "ip1_conv"), ("ip2", "ip2_conv")):
        for source, target in zip(net.params[old], wide.params[new], strict=True):
            print(f"{old} {tuple(source.shape)} -> {new} {tuple(target.shape)}")
            target.data.flat = source.data.flat

    wide.blobs["data"].data[0, 0] = strip
    prob = wide.forward()["prob"][0, :, 0]  # (10, places)
    digits = []
    for image in images[:8]:
        net.blobs["data"].data[0, 0] = image / np.float32(256)
        digits.append(net.forward()["prob"][0].copy())
    here = prob[:, :: SIDE // STRIDE]  # the places where the window lies on one digit
    print(f"one pass over {strip.shape[1]} x {SIDE} pixels, {prob.shape[1]} places")
    print(f"labels:          {' '.join(map(str, labels[:8]))}")
    print(f"one by one:      {' '.join(str(one.argmax()) for one in digits)}")
    print(f"over the strip:  {' '.join(map(str, here.argmax(axis=0)))}")
    print(f"largest difference of a probability: {np.abs(here.T - digits).max():.1e}")


if __name__ == "__main__":
    main()

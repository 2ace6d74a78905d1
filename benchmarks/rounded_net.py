"""Gradients of golden nets, and a model of computing them in bfloat16: the NumPy backend, with only the named values rounded."""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["FACTORS", "ROUNDED_BY_ONEDNN", "Gradients", "Rounding", "beside", "gradients", "norm", "open_net"]

FACTORS = frozenset({"bottoms", "weights", "top gradients"})
ROUNDED_BY_ONEDNN = FACTORS | {"tops", "bottom gradients", "others", "biases"}
"""By this project's backend. Inner products of few samples are left in float32."""
Gradients = dict[str, Any]
"""By the parameter: LAYER/INDEX."""

FORWARD, BACKWARD = ("Pooling", "LRN", "Eltwise", "Scale", "Split"), ("Pooling", "LRN", "Split", "BatchNorm")
"""Types that round what they write, and gradients that they read, if "others" do. ReLU and Concat keep what was rounded;
BatchNorm and Scale are one."""


class Rounding:
    """What is rounded, to the nearest bfloat16 or up or down at random, in all layers that :meth:`watch` was called for.

    ``parts`` names it: "images"; of convolutions "bottoms", "weights", "top gradients" (the factors of their products), "tops",
    "bottom gradients"; "inner products": their factors as well; "biases": their gradients are summed from rounded gradients;
    "others": what all other layers write, and gradients that they read. Sums are as exact as float32's.
    """

    def __init__(self) -> None:
        self.parts: frozenset[str] = frozenset()
        self.random: np.random.Generator | None = None
        """Draws whether to round up or down; a mean of many is right."""

    def __call__(self, part: str, values: Any) -> Any:
        """The values, rounded if this part is."""
        if part not in self.parts:
            return values
        if self.random is None:
            return values.astype(ml_dtypes.bfloat16).astype(np.float32)
        bits = np.ascontiguousarray(values).view(np.uint32)
        bits = bits + self.random.integers(0, 1 << 16, bits.shape, np.uint32)
        return (bits & np.uint32(0xFFFF0000)).view(np.float32)

    def watch(self, layer: Any) -> None:
        """Round what the layer reads and writes. Its gradients have to be cleared before each backward pass."""
        forward, backward = layer.forward, layer.backward
        is_convolution = layer.type == "Convolution"
        has_bias = len(layer.blobs) > 1 and layer.type in ("Convolution", "InnerProduct")

        def round_forward(bottom: Any, top: Any) -> None:
            forward(bottom, top)
            if is_convolution or layer.type in FORWARD:
                top[0].data[...] = self("tops" if is_convolution else "others", top[0].data)

        def round_backward(top: Any, down: Any, bottom: Any) -> None:
            if layer.type in FORWARD:
                for blob in top:
                    blob.diff[...] = self("others", blob.diff)
            exact = top[0].diff.sum(axis=(0, *range(2, top[0].axis_count))) if has_bias else None
            backward(top, down, bottom)
            if has_bias and "biases" not in self.parts:
                layer.blobs[1].diff[...] = exact
            if is_convolution or layer.type in BACKWARD:
                for blob in (blob for blob, wanted in zip(bottom, down, strict=True) if wanted):
                    blob.diff[...] = self("bottom gradients" if is_convolution else "others", blob.diff)

        layer.forward, layer.backward = round_forward, round_backward
        if is_convolution or layer.type == "InnerProduct":
            self._round_factors(layer)

    def _round_factors(self, layer: Any) -> None:
        read, read_diff = layer.read, layer.read_diff

        def is_rounded() -> bool:
            return layer.type == "Convolution" or "inner products" in self.parts

        def round_read(blob: Any) -> Any:
            values, is_parameter = read(blob), any(blob is own for own in layer.blobs)
            if not is_rounded() or (is_parameter and blob is not layer.blobs[0]):
                return values
            return self("weights" if is_parameter else "bottoms", values)

        def round_read_diff(blob: Any) -> Any:
            return self("top gradients", read_diff(blob)) if is_rounded() else read_diff(blob)

        layer.read, layer.read_diff = round_read, round_read_diff


def open_net(name: str, backend: str, precision: str) -> Any:
    """The net for training of ``tests/golden``, with its weights."""
    from tests.integration.golden_nets import open_nets

    os.environ["PARATRAIN_BACKEND"], os.environ["PARATRAIN_PRECISION"] = backend, precision
    with tempfile.TemporaryDirectory() as folder:
        net, test = open_nets(name, Path(folder))
    test.close()
    return net


def gradients(net: Any, pair: int, rounding: Rounding | None = None) -> Gradients:
    """The gradients of all parameters, for one pair of images."""
    start = next(name for name, layer in zip(net.layer_names, net.layers, strict=True) if layer.type != "DummyData")
    for name in ("data", "label"):
        key = f"data/{name}/{pair}" if pair else f"data/{name}"
        blob, random = net.blobs[name], np.random.default_rng(zlib.crc32(key.encode()))
        blob.data[...] = random.integers(0, 10, blob.shape) if name == "label" else random.normal(size=blob.shape)
    if rounding is not None:
        net.blobs["data"].data[...] = rounding("images", net.blobs["data"].data)
    net.forward(start=start)
    net.clear_param_diffs()
    net.backward()
    learned = {name: list(enumerate(blobs)) for name, blobs in net.params.items()}
    return {f"{name}/{i}": blob.diff.copy() for name, blobs in learned.items() for i, blob in blobs if blob.diff.any()}


def norm(values: Any) -> float:
    return float(np.linalg.norm(values.reshape(-1).astype(np.float64)))


def beside(own: Gradients, expected: Gradients) -> dict[str, tuple[float, float, float]]:
    """For each parameter: the norm of its own gradient, of the expected one, and of the difference."""
    return {name: (norm(own[name]), norm(value), norm(own[name] - value)) for name, value in expected.items()}

"""Whole networks: the same layers, shapes, losses and norms as BVLC Caffe computed."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import paratrain as caffe
from paratrain.backends import BACKEND_VARIABLE, BACKENDS, DEFAULT_BACKEND
from paratrain.launch.compare import kernels_of
from tests.optional import need_backend
from tests.paths import GOLDEN

NAMES = ["caffenet", "cifar10_quick", "googlenet", "lenet", "resnet50", "resnet50_deploy"]
SMALL = ["cifar10_quick", "lenet"]
"""Networks that run on every backend; the others on the default one."""
TOLERANCE = 1e-4
DEEP_GRADIENT_TOLERANCE = 1e-3
"""For gradients of GoogLeNet and ResNet-50: with two images, values that float32 rounds across a ReLU's zero or past another
maximum move them. Caffe's own norms are up to 4.3e-4 away from those of a run in float64, and so are ours.
"""
BY_NUMPY = {"Accuracy", "Concat", "Dropout", "Input", "Softmax", "SoftmaxWithLoss", "Split"}
"""Types that oneDNN has no part in, or not in each pass."""


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def _norm(values: npt.NDArray[Any]) -> float:
    flat = values.reshape(-1)
    parts = [flat[start : start + (1 << 16)].astype(np.float64) for start in range(0, flat.size, 1 << 16)]
    return float(np.sqrt(sum(part @ part for part in parts)))


def _fill_parameters(net: caffe.Net) -> None:
    """The weights that the recorded figures were computed with."""
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            random = _generator(f"{layer.name}/{index}")
            if layer.type == "BatchNorm" and index == 2:
                blob.data[...] = 1
            elif len(blob.shape) > 1:
                blob.data[...] = random.normal(size=blob.shape) * np.sqrt(2 / np.prod(blob.shape[1:]))
            else:
                blob.data[...] = random.uniform(0.1, 0.5, size=blob.shape)


def _fill_data(net: caffe.Net, class_count: int) -> str:
    """Fill what the data layer would, and return the name of the first layer after it."""
    for name, layer in zip(net.layer_names, net.layers, strict=True):
        if layer.type not in ("DummyData", "Input"):
            return name
        for top in net.top_names[name]:
            blob, random = net.blobs[top], _generator(f"data/{top}")
            is_label = top.startswith("label")
            blob.data[...] = random.integers(0, class_count, blob.shape) if is_label else random.normal(size=blob.shape)
    raise AssertionError("the net has only data layers")


def _run(net: caffe.Net, recorded: dict[str, Any], gradient_tolerance: float) -> None:
    """Compare the description, a forward pass and, where it is recorded, a backward pass."""
    assert net.layer_names == [layer["name"] for layer in recorded["layers"]]
    assert [layer.type for layer in net.layers] == [layer["type"] for layer in recorded["layers"]]
    assert list(net.top_names.values()) == [layer["top"] for layer in recorded["layers"]]
    assert list(net.bottom_names.values()) == [layer["bottom"] for layer in recorded["layers"]]
    assert {blob: list(net.blobs[blob].shape) for blob in net.blobs} == recorded["blobs"]
    assert {layer: [list(b.shape) for b in blobs] for layer, blobs in net.params.items()} == recorded["params"]

    outputs = net.forward(start=_fill_data(net, recorded["classes"]))
    assert sorted(outputs) == sorted(recorded["outputs"])
    for blob, norm in recorded["blob_l2"].items():
        assert _norm(net.blobs[blob].data) == pytest.approx(norm, rel=TOLERANCE, abs=1e-6), blob
    if "dparam_l2" in recorded:
        net.clear_param_diffs()
        net.backward()
        for layer, norms in recorded["dparam_l2"].items():
            found = [_norm(blob.diff) for blob in net.params[layer]]
            assert found == pytest.approx(norms, rel=gradient_tolerance, abs=1e-6), layer


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, DEFAULT_BACKEND) for name in NAMES]
    + [(name, other) for other in BACKENDS.names() if other != DEFAULT_BACKEND for name in SMALL],
)
def test_a_network_agrees_with_caffe(name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_backend(backend)
    monkeypatch.setenv(BACKEND_VARIABLE, backend)
    recorded = json.loads((GOLDEN / "nets" / f"{name}.json").read_text())
    file = tmp_path / f"{name}.prototxt"  # without the fillers: the weights come from elsewhere
    file.write_text(re.sub(r"weight_filler\s*{[^}]*}", "", (GOLDEN / "nets" / f"{name}.prototxt").read_text()))
    train, test = caffe.Net(file, caffe.TRAIN), caffe.Net(file, caffe.TEST)
    _fill_parameters(train)
    test.share_with(train)
    gradient_tolerance = TOLERANCE if name in (*SMALL, "caffenet") else DEEP_GRADIENT_TOLERANCE
    _run(test, recorded["TEST"], gradient_tolerance)  # first: in training, running statistics move on
    _run(train, recorded["TRAIN"], gradient_tolerance)
    if backend == "onednn":
        for net in (train, test):
            plain = {layer.type for layer, kernel in zip(net.layers, kernels_of(net), strict=True) if kernel == "numpy"}
            assert plain <= BY_NUMPY

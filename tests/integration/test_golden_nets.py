"""Whole networks: the same layers, shapes, losses and norms as BVLC Caffe computed."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import paratrain as caffe
from paratrain.backends import BACKEND_VARIABLE, BACKENDS
from tests.optional import need_backend
from tests.paths import GOLDEN

TOLERANCE = 1e-3


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def _norm(values: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.sum(values.astype(np.float64) ** 2)))


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


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick"])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("backend", BACKENDS.names())
def test_a_network_agrees_with_caffe(name: str, phase: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_backend(backend)
    monkeypatch.setenv(BACKEND_VARIABLE, backend)
    recorded = json.loads((GOLDEN / "nets" / f"{name}.json").read_text())[phase]
    net = caffe.Net(GOLDEN / "nets" / f"{name}.prototxt", getattr(caffe, phase))

    assert net.layer_names == [layer["name"] for layer in recorded["layers"]]
    assert [layer.type for layer in net.layers] == [layer["type"] for layer in recorded["layers"]]
    assert list(net.top_names.values()) == [layer["top"] for layer in recorded["layers"]]
    assert list(net.bottom_names.values()) == [layer["bottom"] for layer in recorded["layers"]]
    assert {blob: list(net.blobs[blob].shape) for blob in net.blobs} == recorded["blobs"]
    assert {layer: [list(b.shape) for b in blobs] for layer, blobs in net.params.items()} == recorded["params"]

    _fill_parameters(net)
    outputs = net.forward(start=_fill_data(net, recorded["classes"]))
    assert sorted(outputs) == sorted(recorded["outputs"])
    for blob, norm in recorded["blob_l2"].items():
        assert _norm(net.blobs[blob].data) == pytest.approx(norm, rel=TOLERANCE, abs=1e-6), blob
    if "dparam_l2" in recorded:
        net.clear_param_diffs()
        net.backward()
        for layer, norms in recorded["dparam_l2"].items():
            found = [_norm(blob.diff) for blob in net.params[layer]]
            assert found == pytest.approx(norms, rel=TOLERANCE, abs=1e-6), layer

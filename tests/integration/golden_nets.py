"""Comparing whole networks with what BVLC Caffe computed: shapes, losses, norms of blobs and of gradients."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import paratrain as caffe
from tests.paths import GOLDEN

__all__ = ["TOLERANCE", "compare_net", "open_nets", "recorded_figures"]

TOLERANCE = 1e-4


def recorded_figures(name: str) -> dict[str, Any]:
    """What Caffe computed for a network, for the phases TRAIN and TEST."""
    figures: dict[str, Any] = json.loads((GOLDEN / "nets" / f"{name}.json").read_text())
    return figures


def open_nets(name: str, folder: Path) -> tuple[caffe.Net, caffe.Net]:
    """The net for training and the one for testing, with the recorded weights. Writes a file into ``folder``."""
    file = folder / f"{name}.prototxt"  # without the fillers: the weights come from elsewhere
    file.write_text(re.sub(r"weight_filler\s*{[^}]*}", "", (GOLDEN / "nets" / f"{name}.prototxt").read_text()))
    train, test = caffe.Net(file, caffe.TRAIN), caffe.Net(file, caffe.TEST)
    _fill_parameters(train)
    test.share_with(train)
    return train, test


def compare_net(
    net: caffe.Net,
    recorded: dict[str, Any],
    gradient_tolerance: float,
    *,
    tolerance: float = TOLERANCE,
    of_layer: float = 0.0,
) -> None:
    """Compare the description, a forward pass and, where it is recorded, a backward pass. Raises AssertionError.

    ``of_layer`` of the largest gradient of a layer is no difference either: there are some that should be 0.
    """
    assert net.layer_names == [layer["name"] for layer in recorded["layers"]]
    assert [layer.type for layer in net.layers] == [layer["type"] for layer in recorded["layers"]]
    assert list(net.top_names.values()) == [layer["top"] for layer in recorded["layers"]]
    assert list(net.bottom_names.values()) == [layer["bottom"] for layer in recorded["layers"]]
    assert {blob: list(net.blobs[blob].shape) for blob in net.blobs} == recorded["blobs"]
    assert {layer: [list(b.shape) for b in blobs] for layer, blobs in net.params.items()} == recorded["params"]

    outputs = net.forward(start=_fill_data(net, recorded["classes"]))
    assert sorted(outputs) == sorted(recorded["outputs"])
    for blob, norm in recorded["blob_l2"].items():
        _near(_norm(net.blobs[blob].data), norm, tolerance, 1e-6, f"blob {blob}")
    if "dparam_l2" in recorded:
        net.clear_param_diffs()
        net.backward()
        for layer, norms in recorded["dparam_l2"].items():
            found = [_norm(blob.diff) for blob in net.params[layer]]
            _near(found, norms, gradient_tolerance, max(1e-6, of_layer * max(norms)), f"gradients of layer {layer}")


def _near(found: Any, expected: Any, relative: float, absolute: float, what: str) -> None:
    limit = np.maximum(relative * np.abs(expected), absolute)
    difference = np.abs(np.subtract(found, expected))
    assert np.all(difference <= limit), f"{what}: the norms are {found}, Caffe's {expected}, and may differ by {limit}"


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

"""A net whose data and labels are put into its blobs, instead of being read or drawn by layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paratrain.proto import SolverParameter

FED_FROM_OUTSIDE = {"Data", "DummyData", "Input", "ImageData", "HDF5Data", "MemoryData", "Accuracy", "Silence"}


def fed_solver_parameter(net_path: str | Path, batch: int, sample_shape: list[int]) -> SolverParameter:
    """Return SGD with momentum and weight decay for the training phase of a net; Input layers feed it `data` and `label`."""
    from paratrain.proto import TRAIN, NetParameter, NetState, SolverParameter, filter_net, read_prototxt

    net = filter_net(read_prototxt(net_path, NetParameter), NetState(phase=TRAIN))
    layers = [layer for layer in net.layer if layer.type not in FED_FROM_OUTSIDE]
    del net.layer[:]
    for top, shape in (("data", [batch, *sample_shape]), ("label", [batch])):
        source = net.layer.add(name=top, type="Input", top=[top])
        source.input_param.shape.add(dim=shape)
    net.layer.extend(layers)
    return SolverParameter(
        base_lr=1e-4, lr_policy="fixed", momentum=0.9, weight_decay=5e-4, max_iter=1 << 30, net_param=net, random_seed=1,
        snapshot_after_train=False,
    )  # fmt: skip


def feed(net: Any, seed: int) -> None:
    """Put random data, and labels below 10, into the blobs of `net`, where they stay."""
    import numpy as np

    random = np.random.default_rng(seed)
    data, label = net.blobs["data"], net.blobs["label"]
    data.data[...] = random.normal(size=data.shape)
    label.data[...] = random.integers(0, 10, label.shape)

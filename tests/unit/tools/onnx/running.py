"""Run a net in paratrain and, exported, in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from paratrain.backends import create_backend
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TEST, NetParameter, upgrade_net

__all__ = ["build", "compare", "fill", "run_net", "run_onnx", "session"]

Array = npt.NDArray[Any]


def build(text: str) -> Net:
    """The TEST phase of a net on the plain backend."""
    net = upgrade_net(text_format.Parse(text, NetParameter()))
    return Net(net, LayerContext(create_backend("numpy"), TEST))


def fill(net: Net, seed: int = 0) -> None:
    """Give every parameter values of an order of 1, those of BatchNorm and BN positive."""
    random = np.random.default_rng(seed)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.uniform(0.2, 1.0, blob.shape) * np.where(blob.axis_count > 1, 0.3, 1)


def session(data: bytes) -> Any:
    """A session of one thread, without messages."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_onnx(data: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a model by name, for those of ``inputs`` that it has."""
    opened = session(data)
    wanted = {value.name: inputs[value.name] for value in opened.get_inputs()}
    names = [value.name for value in opened.get_outputs()]
    return dict(zip(names, opened.run(names, wanted), strict=True))


def run_net(net: Net, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The blobs of a net after a forward pass; what works in place has been there already."""
    for name, values in inputs.items():
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].data[...] = values
    net.reshape()
    net.forward_from_to()
    return {name: blob.data.copy() for name, blob in net.blobs.items()}


def compare(expected: Mapping[str, Array], found: Mapping[str, Array], tolerance: float = 1e-4) -> None:
    """Compare what a model gives with the blobs of the same names."""
    assert found
    for name, values in found.items():
        assert values.shape == expected[name].shape, name
        assert values.dtype == np.float32, name
        np.testing.assert_allclose(values, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)

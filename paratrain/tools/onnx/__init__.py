"""Networks as ONNX models, for runtimes that know no Caffe: each module translates a family of layers."""

from __future__ import annotations

import paratrain.tools.onnx.learned
import paratrain.tools.onnx.neurons
import paratrain.tools.onnx.normalization
import paratrain.tools.onnx.pooling
import paratrain.tools.onnx.reductions
import paratrain.tools.onnx.shapes  # noqa: F401
from paratrain.tools.onnx.inputs import brings_data, with_inputs
from paratrain.tools.onnx.translate import DEFAULT_OPSET, OnnxModel, to_onnx

__all__ = ["DEFAULT_OPSET", "OnnxModel", "brings_data", "to_onnx", "with_inputs"]

"""The one module that imports onnx, when it is first needed: a finished graph becomes a checked model, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paratrain import __version__
from paratrain.errors import ExportError, MissingDependencyError
from paratrain.tools.onnx.graph import Graph, Node, Size

__all__ = ["OPSETS", "build_model", "require_onnx"]

OPSETS = range(13, 24)
"""The versions of ONNX's operators that a model can be written for."""

_LARGEST_BYTES = 2**31 - 1


def require_onnx() -> None:
    """Raise MissingDependencyError where onnx is not installed."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingDependencyError("onnx", "paratrain export --onnx", "onnx") from None


def build_model(
    graph: Graph, outputs: Sequence[str], sizes: Mapping[str, Size], batch: int | None, name: str, doc: str
) -> bytes:
    """Return the model of a graph that has its last names, after onnx's own full check of it.

    ``sizes`` are those of the values that have a blob's name; ``batch`` is the size of the axes that are called "batch",
    None where nothing is left open. Raises ExportError where it would be larger than a file of ONNX can be.
    """
    import onnx
    from onnx import helper, numpy_helper

    size_bytes = sum(values.nbytes for values in graph.constants.values())
    if size_bytes > _LARGEST_BYTES:
        raise ExportError(f"the weights take {size_bytes:,} bytes; a file of ONNX holds {_LARGEST_BYTES:,} at most")

    def info(value: str) -> onnx.ValueInfoProto:
        size = sizes[value]
        dims: list[int | str | None] = [
            length if not varies else "batch" if length == batch else None
            for length, varies in zip(size.shape, size.varies, strict=True)
        ]
        return helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, dims)

    made = helper.make_graph(
        [_node(node) for node in graph.nodes],
        name or "net",
        [info(value) for value in graph.inputs],
        [info(value) for value in outputs],
        initializer=[numpy_helper.from_array(values, key) for key, values in graph.constants.items()],
        doc_string=doc,
        value_info=[info(value) for value in _inner(graph, outputs) if value in sizes],
    )
    opset = helper.make_opsetid("", graph.opset)
    model = helper.make_model(
        made,
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="paratrain",
        producer_version=__version__,
        doc_string=doc,
    )
    data: bytes = model.SerializeToString()
    onnx.checker.check_model(data, full_check=True)
    return data


def _inner(graph: Graph, outputs: Sequence[str]) -> list[str]:
    return [value for node in graph.nodes for value in node.outputs if value not in outputs]


def _node(node: Node) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    attributes: dict[str, Any] = {
        key: TensorProto.DataType.Value(value)
        if key == "to"
        else numpy_helper.from_array(value)
        if isinstance(value, np.ndarray)
        else value
        for key, value in node.attributes.items()
    }
    return helper.make_node(node.op, node.inputs, node.outputs, name=node.name, doc_string=node.doc, **attributes)

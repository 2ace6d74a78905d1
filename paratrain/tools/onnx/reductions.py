"""Layers that sum, count and choose: Reduction, ArgMax, Softmax."""

from __future__ import annotations

from paratrain.proto.caffe_pb2 import ReductionParameter
from paratrain.tools.onnx.view import LayerView, translates

__all__ = ["softmax"]


@translates("Softmax")
def softmax(view: LayerView) -> list[str]:
    """Softmax of bottom 0; also what stands in the place of a SoftmaxWithLoss."""
    axis = view.layer.parameter.softmax_param.axis % view.bottoms[0].rank
    return [view.add("Softmax", view.inputs[0], axis=axis)]


@translates("Reduction")
def _reduction(view: LayerView) -> list[str]:
    parameter, x, rank = view.layer.parameter.reduction_param, view.inputs[0], view.bottoms[0].rank
    if parameter.operation == ReductionParameter.ASUM:
        x = view.add("Abs", x)
    elif parameter.operation == ReductionParameter.SUMSQ:
        x = view.add("Mul", x, x)
    op = "ReduceMean" if parameter.operation == ReductionParameter.MEAN else "ReduceSum"
    y = view.reduce(op, x, range(parameter.axis % rank, rank), keepdims=False)
    return [view.scaled(y, parameter.coeff, "coeff")]


@translates("ArgMax")
def _argmax(view: LayerView) -> list[str]:
    parameter, x, size, top = view.layer.parameter.argmax_param, view.inputs[0], view.bottoms[0], view.tops[0]
    has_axis = parameter.HasField("axis")
    axis = parameter.axis % size.rank if has_axis else 1
    if not has_axis:
        flat = size.joined([0], list(range(1, size.rank)))
        x, size = view.reshape(x, size, flat), flat
    indices, values = _highest(view, x, axis, view.fixed(size, axis, "the values to choose from"))
    if has_axis:
        return [values if parameter.out_max_val else indices]
    # (N, top_k) each.
    pairs = top.joined([0], [2])
    shape = top.joined([0], [], *[[place] for place in range(2, top.rank)])
    parts = [view.reshape(part, pairs, shape) for part in ([indices, values] if parameter.out_max_val else [indices])]
    return [view.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]]


def _highest(view: LayerView, x: str, axis: int, count: int) -> tuple[str, str]:
    """The indices, as floats, and the values of the highest along ``axis``; of equal ones the last comes first."""
    parameter = view.layer.parameter.argmax_param
    if parameter.top_k == 1 and not parameter.out_max_val:
        index = view.add("ArgMax", x, axis=axis, keepdims=1, select_last_index=1)
        return view.add("Cast", index, to="FLOAT"), ""
    # TopK takes the first of equals: the other way round it is the last.
    backwards = view.add(
        "Slice",
        x,
        view.integers("last", [-1]),
        view.integers("before_first", [-count - 1]),
        view.integers("axis", [axis]),
        view.integers("step", [-1]),
    )
    values, places = view.add_many("TopK", [backwards, view.integers("top_k", [parameter.top_k])], 2, axis=axis)
    indices = view.add("Sub", view.integers("last_index", count - 1), places)
    return view.add("Cast", indices, to="FLOAT"), values

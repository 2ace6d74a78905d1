"""Layers that work value by value."""

from __future__ import annotations

import math

from paratrain.proto.caffe_pb2 import EltwiseParameter
from paratrain.tools.onnx.view import LayerView, UnsayableError, translates

__all__: list[str] = []


@translates("AbsVal", "TanH", "Sigmoid", "BNLL")
def _plain(view: LayerView) -> list[str]:
    """Softplus is log(1 + exp(x))."""
    names = {"AbsVal": "Abs", "TanH": "Tanh", "Sigmoid": "Sigmoid", "BNLL": "Softplus"}
    return [view.add(names[view.layer.parameter.type], view.inputs[0])]


@translates("ReLU")
def _relu(view: LayerView) -> list[str]:
    slope = view.layer.parameter.relu_param.negative_slope
    x = view.inputs[0]
    return [view.add("Relu", x) if slope == 0 else view.add("LeakyRelu", x, alpha=slope)]


@translates("ReLU6")
def _relu6(view: LayerView) -> list[str]:
    x, slope = view.inputs[0], view.layer.parameter.relu6_param.negative_slope
    y = view.add("Clip", x, view.floats("min", 0), view.floats("max", 6))
    if slope == 0:
        return [y]
    below = view.scaled(view.add("Min", x, view.floats("zero", 0)), slope, "slope")
    return [view.add("Add", y, below)]


@translates("ELU")
def _elu(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.elu_param
    factor: float = getattr(parameter, "lambda")  # a word of Python
    if factor == 1:
        return [view.add("Elu", view.inputs[0], alpha=parameter.alpha)]
    return [view.scaled(view.add("Elu", view.inputs[0], alpha=parameter.alpha), factor, "lambda")]


@translates("PReLU")
def _prelu(view: LayerView) -> list[str]:
    slopes = view.channels_first(0) if view.layer.blobs[0].shape else view.parameter(0, (1,))
    return [view.add("PRelu", view.inputs[0], slopes)]


@translates("Clip")
def _clip(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.clip_param
    return [view.add("Clip", view.inputs[0], view.floats("min", parameter.min), view.floats("max", parameter.max))]


@translates("Threshold")
def _threshold(view: LayerView) -> list[str]:
    limit = view.floats("threshold", view.layer.parameter.threshold_param.threshold)
    return [view.add("Cast", view.add("Greater", view.inputs[0], limit), to="FLOAT")]


@translates("Swish")
def _swish(view: LayerView) -> list[str]:
    x = view.inputs[0]
    return [view.add("Mul", x, view.add("Sigmoid", view.scaled(x, view.layer.parameter.swish_param.beta, "beta")))]


@translates("Power")
def _power(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.power_param
    power, scale, shift = parameter.power, parameter.scale, parameter.shift
    x = view.inputs[0]
    if power * scale == 0:
        if power != 0 and (shift < 0 or (shift == 0 and power < 0)):
            raise UnsayableError(f"its result {shift:g} to the power of {power:g} is no number")
        value = 1.0 if power == 0 else float(shift**power)
        return [view.add("Expand", view.floats("value", value), view.add("Shape", x))]
    y = view.shifted(view.scaled(x, scale), shift)
    if power == 2:
        y = view.add("Mul", y, y)
    elif power == 0.5:
        y = view.add("Sqrt", y)
    elif power == -1:
        y = view.add("Reciprocal", y)
    elif power != 1:
        y = view.add("Pow", y, view.floats("power", power))
    return [y]


@translates("Exp")
def _exp(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.exp_param
    log_base = 1.0 if parameter.base == -1 else math.log(parameter.base)
    inner = view.shifted(view.scaled(view.inputs[0], parameter.scale * log_base), parameter.shift * log_base)
    return [view.add("Exp", inner)]


@translates("Log")
def _log(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.log_param
    inner = view.shifted(view.scaled(view.inputs[0], parameter.scale), parameter.shift)
    y = view.add("Log", inner)
    return [y if parameter.base == -1 else view.scaled(y, 1.0 / math.log(parameter.base), "inverse_log_base")]


@translates("Dropout")
def _dropout(view: LayerView) -> list[str]:
    """Nothing in TEST, unless the factor was left for it."""
    parameter = view.layer.parameter.dropout_param
    return [view.inputs[0] if parameter.scale_train else view.scaled(view.inputs[0], 1.0 - parameter.dropout_ratio)]


@translates("Eltwise")
def _eltwise(view: LayerView) -> list[str]:
    parameter, values = view.layer.parameter.eltwise_param, list(view.inputs)
    if parameter.operation == EltwiseParameter.PROD:
        product = values[0]
        for value in values[1:]:
            product = view.add("Mul", product, value)
        return [product]
    if parameter.operation == EltwiseParameter.MAX:
        return [view.add("Max", *values)]
    for index, coeff in enumerate(parameter.coeff):
        values[index] = view.scaled(values[index], coeff, f"coeff_{index}")
    return [view.add("Add" if len(values) == 2 else "Sum", *values)]


@translates("Axpy")
def _axpy(view: LayerView) -> list[str]:
    factor, x, y = view.inputs
    source, size = view.bottoms[0], view.bottoms[1]
    ones = size.joined([0], [1], *[[]] * (size.rank - 2))
    return [view.add("Add", view.add("Mul", x, view.reshape(factor, source, ones)), y)]


@translates("LSTMUnit")
def _lstm_unit(view: LayerView) -> list[str]:
    """c = cont s(f) c_prev + s(i) tanh(g), h = s(o) tanh(c), by elementary operations."""
    before, gates, cont = view.inputs
    size = view.fixed(view.bottoms[0], 2, "the number of cells")
    i, f, o, g = view.add_many("Split", [gates, view.integers("sizes", [size] * 4)], 4, axis=2)
    kept = view.add("Mul", before, view.add("Unsqueeze", cont, view.integers("axes", [2])))
    c = view.add(
        "Add",
        view.add("Mul", view.add("Sigmoid", f), kept),
        view.add("Mul", view.add("Sigmoid", i), view.add("Tanh", g)),
    )
    return [c, view.add("Mul", view.add("Sigmoid", o), view.add("Tanh", c))]

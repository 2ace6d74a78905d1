"""Old files brought to today's form, as Caffe brings them: V0 and V1 networks, bare inputs, solver types as numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from paratrain.errors import NetError, SolverError
from paratrain.proto.caffe_pb2 import LayerParameter, NetParameter, ParamSpec, SolverParameter, V1LayerParameter
from paratrain.proto.upgrade_v0 import is_v0, upgrade_v0

__all__ = ["upgrade_net", "upgrade_solver"]

Report = Callable[[str], None]

_V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

# V1 data layers that once had these settings of the transformation themselves.
_TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
_TRANSFORMATIONS = ("scale", "mean_file", "crop_size", "mirror")

_SOLVER_TYPES = {
    SolverParameter.SGD: "SGD",
    SolverParameter.NESTEROV: "Nesterov",
    SolverParameter.ADAGRAD: "AdaGrad",
    SolverParameter.RMSPROP: "RMSProp",
    SolverParameter.ADADELTA: "AdaDelta",
    SolverParameter.ADAM: "Adam",
}


def upgrade_net(net: NetParameter, report: Report | None = None) -> NetParameter:
    """Return ``net`` in today's form: a new message, or ``net`` itself if it is in that form already.

    In this order: V0 layers to V1; V1 layers to ``layer``, the transformations of data layers into ``transform_param``;
    ``input`` with its shapes to a layer of type Input named "input"; the parameter settings of BatchNorm layers dropped
    where there are three (its statistics are not learned). ``report`` is called with a line for each kind of upgrade.
    Raises NetError where Caffe would stop or lose something.
    """
    if report is None:
        report = _silent
    if is_v0(net):
        report("the network is in the form of V0 (2013); upgraded")
        net = upgrade_v0(net)
    if net.layers:
        report("the network has 'layers' (V1, 2014) instead of 'layer'; upgraded")
        net = _upgrade_v1(net)
    if net.input or net.input_shape or net.input_dim:
        report("'input' at the top of the network is deprecated; it is read as a layer of type Input")
        net = _upgrade_input(net)
    if any(_has_old_batch_norm_params(layer) for layer in net.layer):
        report("BatchNorm's three 'param' settings are dropped: its statistics are not learned")
        net = _copy(net)
        for layer in net.layer:
            if _has_old_batch_norm_params(layer):
                layer.ClearField("param")
    for layer in net.layer:
        ignored = _ignored_transformations(layer)
        if ignored:
            report(
                f"layer '{layer.name}': {', '.join(ignored)} are ignored, as in Caffe; they belong into transform_param"
            )
    return net


def upgrade_solver(
    solver: SolverParameter, path: str | os.PathLike[str] | None = None, report: Report | None = None
) -> SolverParameter:
    """Return ``solver`` in today's form, a new message: ``solver_type`` becomes ``type``, and nets written in it are upgraded.

    With the ``path`` of the solver's file, a missing ``snapshot_prefix`` becomes that path without its ending, and one that is a
    folder gets the file's name. Raises SolverError if both ``solver_type`` and ``type`` are given.
    """
    if report is None:
        report = _silent
    upgraded = SolverParameter()
    upgraded.CopyFrom(solver)
    if solver.HasField("solver_type"):
        name = _SOLVER_TYPES[solver.solver_type]
        if solver.HasField("type"):
            old = SolverParameter.SolverType.Name(solver.solver_type)
            raise SolverError(
                f'the solver has both type: "{solver.type}" and the old solver_type: {old}; keep only type'
            )
        report(f'solver_type is deprecated; it is read as type: "{name}"')
        upgraded.type = name
        upgraded.ClearField("solver_type")
    for field in ("net_param", "train_net_param"):
        if upgraded.HasField(field):
            getattr(upgraded, field).CopyFrom(upgrade_net(getattr(solver, field), report))
    for index, net in enumerate(solver.test_net_param):
        upgraded.test_net_param[index].CopyFrom(upgrade_net(net, report))
    if path is not None:
        _complete_snapshot_prefix(upgraded, Path(path), report)
    return upgraded


def _complete_snapshot_prefix(solver: SolverParameter, path: Path, report: Report) -> None:
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = str(path.with_suffix(""))
        report(f"snapshot_prefix was not specified and is set to {solver.snapshot_prefix}")
    elif Path(solver.snapshot_prefix).is_dir():
        solver.snapshot_prefix = str(Path(solver.snapshot_prefix) / path.stem)
        report(f"snapshot_prefix was a directory and is replaced to {solver.snapshot_prefix}")


def _upgrade_v1(net: NetParameter) -> NetParameter:
    if net.layer:
        raise NetError(f"network '{net.name}' has both 'layer' and the old 'layers'; write all of them as 'layer'")
    upgraded = NetParameter()
    for field, value in net.ListFields():
        if field.name == "layers":
            continue
        _copy_field(upgraded, field.name, value)
    for old in net.layers:
        upgraded.layer.add().CopyFrom(_upgrade_v1_layer(old))
    return upgraded


def _upgrade_v1_layer(old: V1LayerParameter) -> LayerParameter:
    layer = LayerParameter()
    v1_type = V1LayerParameter.LayerType.Name(old.type)
    for field, value in old.ListFields():
        if field.name == "type":
            layer.type = _V1_TYPES[v1_type]
        elif field.name == "param":
            for spec, name in zip(_specs(layer, len(value)), value, strict=True):
                spec.name = name
        elif field.name == "blob_share_mode":
            for spec, mode in zip(_specs(layer, len(value)), value, strict=True):
                spec.share_mode = mode
        elif field.name == "blobs_lr":
            for spec, factor in zip(_specs(layer, len(value)), value, strict=True):
                spec.lr_mult = factor
        elif field.name == "weight_decay":
            for spec, factor in zip(_specs(layer, len(value)), value, strict=True):
                spec.decay_mult = factor
        else:
            _copy_field(layer, field.name, value)
    owner = _TRANSFORMED.get(v1_type)
    if owner is not None and layer.HasField(owner):
        settings = getattr(layer, owner)
        for name in _TRANSFORMATIONS:
            if settings.HasField(name):
                setattr(layer.transform_param, name, getattr(settings, name))
                settings.ClearField(name)
    return layer


def _specs(layer: LayerParameter, count: int) -> list[ParamSpec]:
    """The first ``count`` parameter settings of the layer, made where they are missing."""
    while len(layer.param) < count:
        layer.param.add()
    return list(layer.param[:count])


def _upgrade_input(net: NetParameter) -> NetParameter:
    count = len(net.input)
    if net.input_shape and len(net.input_shape) != count:
        raise NetError(
            f"network '{net.name}' has {count} inputs and {len(net.input_shape)} input_shapes; give one for each"
        )
    if not net.input_shape and net.input_dim and len(net.input_dim) != 4 * count:
        raise NetError(
            f"network '{net.name}' has {count} inputs and {len(net.input_dim)} input_dims; give four for each"
        )
    upgraded = _copy(net)
    for name in ("input", "input_shape", "input_dim", "layer"):
        upgraded.ClearField(name)
    if net.input_shape or net.input_dim:
        layer = upgraded.layer.add(name="input", type="Input", top=net.input)
        for index in range(count):
            dims = net.input_shape[index].dim if net.input_shape else net.input_dim[4 * index : 4 * index + 4]
            layer.input_param.shape.add(dim=dims)
    upgraded.layer.MergeFrom(net.layer)
    return upgraded


def _has_old_batch_norm_params(layer: LayerParameter) -> bool:
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _ignored_transformations(layer: LayerParameter) -> list[str]:
    owner = {"Data": "data_param", "ImageData": "image_data_param"}.get(layer.type)
    if owner is None or not layer.HasField(owner):
        return []
    return [f"{owner}.{name}" for name in _TRANSFORMATIONS if getattr(layer, owner).HasField(name)]


def _copy(net: NetParameter) -> NetParameter:
    copy = NetParameter()
    copy.CopyFrom(net)
    return copy


def _copy_field(target: Message, name: str, value: Any) -> None:
    """Set a field of any kind to ``value``, which was read from a field of the same type."""
    current = getattr(target, name)
    if hasattr(current, "CopyFrom"):
        current.CopyFrom(value)
    elif hasattr(current, "MergeFrom"):
        current.MergeFrom(value)
    else:
        setattr(target, name, value)


def _silent(_: str) -> None:
    """Take the place of a missing report."""

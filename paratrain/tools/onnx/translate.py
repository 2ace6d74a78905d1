"""From a net to a model of ONNX: layer by layer, then the last names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from paratrain.blob import Blob
from paratrain.errors import ExportError, NetError
from paratrain.layers.base import Layer
from paratrain.net import Net
from paratrain.proto import TEST, NetParameter
from paratrain.registry import nearest
from paratrain.tools.onnx.graph import Graph, Size
from paratrain.tools.onnx.inputs import brings_data, with_inputs
from paratrain.tools.onnx.library import OPSETS, build_model, require_onnx
from paratrain.tools.onnx.reductions import softmax
from paratrain.tools.onnx.view import TRANSLATIONS, LayerView, Translation, UnsayableError

__all__ = ["DEFAULT_OPSET", "OnnxModel", "to_onnx"]

DEFAULT_OPSET = 17

_SINKS = ("Accuracy", "HDF5Output", "Silence")


def _sigmoid(view: LayerView) -> list[str]:
    return [view.add("Sigmoid", view.inputs[0])]


_ENDINGS: dict[str, Translation] = {"SoftmaxWithLoss": softmax, "SigmoidCrossEntropyLoss": _sigmoid}
"""Losses that end in probabilities: these are what is exported."""

_REASONS = {
    "Filter": "how many items it lets through depends on their values",
    "LSTM": "ONNX's LSTM cannot begin sequences anew in the middle, where cont is 0",
    "Python": "what it does is written in Python",
    "RNN": "ONNX's RNN cannot begin sequences anew in the middle, where cont is 0",
}


@dataclass
class OnnxModel:
    """A model, checked, as the bytes of its file, and what is worth saying about it."""

    data: bytes
    inputs: dict[str, Size]
    outputs: dict[str, Size]
    notes: list[str]


def to_onnx(
    net: Net, *, dynamic_batch: bool = False, outputs: Sequence[str] = (), opset: int = DEFAULT_OPSET
) -> OnnxModel:
    """Translate ``net``, in the TEST phase, with the weights that it has.

    Inputs are the tops of Input and data layers, outputs the blobs that nothing reads, or those named in ``outputs``; both
    are called as the blobs are. A SoftmaxWithLoss becomes a Softmax and a SigmoidCrossEntropyLoss a Sigmoid, whose result is
    called ``prob`` (``LAYER_prob`` where there are several), or as the loss's second top; other losses and Accuracy are left
    out. With ``dynamic_batch`` the first axis of the inputs, as far as it is as long as that of the first, may have any length.

    Raises ExportError that lists every layer that cannot be said, and MissingDependencyError without onnx.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not known; choose one from {OPSETS[0]} to {OPSETS[-1]}")
    if net.phase != TEST:
        raise ExportError("only a net in the TEST phase can be exported; build it with phase TEST")
    require_onnx()
    return _Translator(net, _twin(net) if dynamic_batch else None, opset).run(outputs)


def _twin(net: Net) -> Net:
    """The same net with batches that are one longer, to see which axes follow; it has no memory and is never run."""
    parameter = NetParameter()
    parameter.CopyFrom(net.parameter)
    shapes = {
        name: blob.shape
        for layer, tops, names in zip(net.layers, net.tops, net.top_names.values(), strict=True)
        if brings_data(layer.parameter)
        for blob, name in zip(tops, names, strict=True)
    }
    batch = next((shape[0] for shape in shapes.values() if shape), 0)
    try:
        return Net(with_inputs(parameter, shapes, batch + 1), replace(net.context, shapes_only=True))
    except NetError as error:
        raise ExportError(
            f"the batch cannot be left open, since batches of {batch + 1} do not fit: {error}; export with a fixed batch"
        ) from None


@dataclass
class _Blobs:
    """Which value each blob has, and which blobs are still to be read."""

    values: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Blobs that are not in the model, and the layer that would make each."""


class _Translator:
    """Walks through the layers of a net once."""

    def __init__(self, net: Net, twin: Net | None, opset: int) -> None:
        self._net, self._twin = net, twin
        self._blobs = _Blobs()
        self._graph = Graph(opset, set(net.blobs))
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._parameters: dict[tuple[int, tuple[int, ...]], str] = {}
        self._ending_count = sum(layer.type in _ENDINGS for layer in net.layers)
        # Splits that the net has put in: their tops are the blob itself, read in several places.
        self._split_from: dict[str, str] = {}
        self._read_splits: set[str] = set()

    def run(self, outputs: Sequence[str]) -> OnnxModel:
        """Translate everything and finish the model."""
        for index, layer in enumerate(self._net.layers):
            self._translate(index, layer)
        if self._problems:
            count = len(self._problems)
            layers = "1 layer" if count == 1 else f"{count} layers"
            raise ExportError(f"{layers} cannot be said in ONNX:\n" + "\n".join(f"  {line}" for line in self._problems))
        chosen = self._choose(outputs)
        names = self._finish(chosen)
        return self._build(names)

    # -- layer by layer ------------------------------------------------------------------------------------------

    def _translate(self, index: int, layer: Layer) -> None:
        bottoms, tops = self._net.bottom_names[layer.name], self._net.top_names[layer.name]
        kind = layer.parameter.type
        if brings_data(layer.parameter):
            for name, size in zip(tops, self._sizes(index, tops=True), strict=True):
                self._graph.inputs[name] = size
                self._make(name, name, size)
            return
        if kind in _ENDINGS:
            self._end(index, layer, bottoms, tops)
            return
        if kind in _SINKS or layer.is_loss:
            self._leave_out(layer, bottoms, tops)
            return
        values = self._call(index, layer, bottoms, TRANSLATIONS.get(kind) if kind in TRANSLATIONS else None)
        if kind == "Split" and layer.name.endswith("_split"):
            self._split_from |= dict.fromkeys(tops, bottoms[0])
        else:
            self._read(bottoms)
        for name, value, size in zip(tops, values or [""] * len(tops), self._sizes(index, tops=True), strict=True):
            self._make(name, value, size)
        if kind == "Split" and layer.name.endswith("_split"):
            self._blobs.unread.pop(bottoms[0], None)

    def _call(self, index: int, layer: Layer, bottoms: Sequence[str], translation: Translation | None) -> list[str]:
        """Translate a layer; [] and a problem noted where that cannot be done."""
        where = f"'{layer.name}' ({layer.parameter.type})"
        missing = next((name for name in bottoms if name in self._blobs.left_out), None)
        if translation is None:
            reason = _REASONS.get(layer.parameter.type, "ONNX has no operators for it, or paratrain does not know them")
            self._problems.append(f"{where}: {reason}")
            return []
        if missing is not None:
            maker = self._blobs.left_out[missing]
            self._problems.append(f"{where}: reads '{missing}', which '{maker}' makes, a layer that is left out")
            return []
        view = LayerView(
            layer,
            self._graph,
            [self._blobs.values[name] for name in bottoms],
            self._sizes(index, tops=False),
            self._sizes(index, tops=True),
            self._parameters,
        )
        try:
            return translation(view)
        except UnsayableError as error:
            self._problems.append(f"{where}: {error}")
            return []

    def _end(self, index: int, layer: Layer, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Put probabilities in the place of a loss."""
        values = self._call(index, layer, bottoms, _ENDINGS[layer.parameter.type])
        self._read(bottoms[:1])
        wanted = "prob" if self._ending_count == 1 else f"{layer.name}_prob"
        name = tops[1] if len(tops) > 1 else self._graph.unique(wanted)
        self._graph.reserved.add(name)
        if values:
            self._make(name, values[0], self._sizes(index, tops=False)[0])
        self._blobs.left_out[tops[0]] = layer.name
        what = "softmax" if layer.parameter.type == "SoftmaxWithLoss" else "sigmoid"
        self._notes.append(f"layer '{layer.name}' ({layer.parameter.type}) becomes its {what}, called '{name}'")

    def _leave_out(self, layer: Layer, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        if layer.parameter.type == "Silence":
            self._read(bottoms)
            return
        self._blobs.left_out |= dict.fromkeys(tops, layer.name)
        self._notes.append(f"layer '{layer.name}' ({layer.parameter.type}) is left out")

    def _read(self, names: Sequence[str]) -> None:
        for name in names:
            self._blobs.unread.pop(name, None)
            if name in self._split_from:
                self._read_splits.add(self._split_from[name])

    def _make(self, name: str, value: str, size: Size) -> None:
        self._blobs.values[name], self._blobs.sizes[name] = value, size
        self._blobs.unread.pop(name, None)
        self._blobs.unread[name] = None

    def _sizes(self, index: int, *, tops: bool) -> list[Size]:
        def blobs(net: Net) -> list[Blob]:
            return (net.tops if tops else net.bottoms)[index]

        others = blobs(self._twin or self._net)
        return [
            Size(one.shape, tuple(a != b for a, b in zip(one.shape, other.shape, strict=True)))
            for one, other in zip(blobs(self._net), others, strict=True)
        ]

    # -- outputs and names ---------------------------------------------------------------------------------------

    def _choose(self, wanted: Sequence[str]) -> list[str]:
        """The blobs that the model gives: those that are wanted, else those that nothing reads."""
        blobs = self._blobs
        for name in wanted:
            if name not in blobs.values:
                near = nearest(name, list(blobs.values), 1)
                because = f"layer '{blobs.left_out[name]}' is left out" if name in blobs.left_out else "no such blob"
                raise ExportError(f"output '{name}': {because}" + (f"; did you mean '{near[0]}'?" if near else ""))
        if wanted:
            return list(dict.fromkeys(wanted))
        chosen: dict[str, None] = {}
        for name in blobs.unread:
            base = self._split_from.get(name, name)
            if base not in self._read_splits and not (base in self._graph.inputs and blobs.values[name] == base):
                chosen[base] = None
        if not chosen:
            raise ExportError("nothing is left to export: the net makes no blob from its inputs that is not left out")
        return list(chosen)

    def _finish(self, outputs: Sequence[str]) -> dict[str, Size]:
        """Give values the names of their blobs; return the outputs under the names that they got."""
        names: dict[str, str] = {}
        result: dict[str, Size] = {}
        made = {value for node in self._graph.nodes for value in node.outputs}
        for blob in outputs:
            value, name = self._blobs.values[blob], blob
            if blob in self._graph.inputs:  # overwritten in place, or handed through
                self._graph.reserved.discard(blob)
                name = self._graph.unique(f"{blob}_out")
                self._notes.append(f"output '{blob}' is called '{name}', since an input has its name")
            if value not in made or value in names:
                value = self._graph.add("Identity", [value], 1, f"{blob}_output", f"blob '{blob}'", {}).outputs[0]
            names[value] = name
            result[name] = self._blobs.sizes[blob]
        self._graph.prune(names)
        for blob, value in self._blobs.values.items():
            if value in made and value not in names and blob not in names.values() and blob not in self._graph.inputs:
                names[value] = self._split_from.get(blob, blob)
        self._graph.rename(names)
        self._graph.name_nodes()
        return result

    def _build(self, outputs: dict[str, Size]) -> OnnxModel:
        net, graph = self._net, self._graph
        unused = [name for layer in net.layers if brings_data(layer.parameter) for name in net.top_names[layer.name]]
        for name in unused:
            if name not in graph.inputs:
                self._notes.append(f"input '{name}' is left out, since no output needs it")
        first = next((size for size in graph.inputs.values() if any(size.varies)), None)
        batch = None if first is None else first.shape[0]
        doc = f"The Caffe network '{net.name}' in its TEST phase"
        sizes = {**self._blobs.sizes, **outputs}
        data = build_model(graph, list(outputs), sizes, batch, net.name, doc)
        return OnnxModel(data, graph.inputs, outputs, self._notes)

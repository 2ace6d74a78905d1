"""A network as a graph to draw: a node for each layer with the blobs it makes, and arrows to the layers that read them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from paratrain.check.nets import NetReport
from paratrain.check.shapes import ShapedLayer, top_names
from paratrain.proto import TEST, TRAIN, LayerParameter, Phase

__all__ = ["BlobBox", "Graph", "Node", "build_graph", "makers_first", "quoted", "to_dot"]

FAMILIES = {
    "data": ("Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "Parameter", "WindowData"),
    "weights": ("Convolution", "Deconvolution", "DepthwiseConvolution", "Embed", "InnerProduct", "LSTM", "RNN"),
    "pooling": ("Pooling", "SPP", "ROIPooling"),
    "normalization": ("BatchNorm", "BN", "LRN", "MVN", "Normalize", "Scale", "Bias", "SyncBN"),
    "joint": ("Concat", "Eltwise", "Slice", "Crop", "Axpy"),
}


@dataclass
class BlobBox:
    """A blob under the layer that makes it."""

    name: str
    shape: str


@dataclass
class Node:
    """One layer; those that work in place on what it makes are written into it."""

    name: str
    kind: str
    family: str
    settings: str
    phases: set[Phase]
    blobs: list[BlobBox]
    in_place: list[Node] = field(default_factory=list)


@dataclass
class Graph:
    """Nodes in the order of the net; edges (index of the maker, which of its blobs, index of the reader)."""

    name: str
    phases: set[Phase]
    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int, int]] = field(default_factory=list)

    def note(self, node: Node) -> str:
        """``TRAIN`` for a layer that only the net to train has; empty for one that all have."""
        return "" if node.phases == self.phases else ", ".join(sorted(Phase.Name(phase) for phase in node.phases))


def build_graph(nets: Sequence[NetReport]) -> Graph:
    """Join the nets of all phases in one graph: layers that are the same in several phases are one node. Splits are left out."""
    graph = Graph(nets[0].shaped.parameter.name, {phase for net in nets for phase in _phases(net)})
    known: dict[bytes, Node] = {}
    for net in nets:
        places: dict[str, tuple[int, int]] = {}  # where a blob comes from: node, and which of its blobs
        names: dict[str, str] = {}  # what a split's top was called before
        for shaped in net.shaped.layers:
            parameter = shaped.parameter
            if parameter.type == "Split" and parameter.bottom and parameter.bottom[0] in places:
                places.update(dict.fromkeys(parameter.top, places[parameter.bottom[0]]))
                names.update(dict.fromkeys(parameter.top, parameter.bottom[0]))
                continue
            key = _key(parameter, [names.get(name, name) for name in parameter.bottom])
            _add(graph, known, key, places, shaped, _phases(net))
    return _in_order(graph)


def makers_first(node_count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the nodes in an order in which readers come behind their makers; ``edges`` go from makers to readers.

    The order is that of the numbers as far as can be. The nodes of a circle come last.
    """
    readers: dict[int, set[int]] = {index: set() for index in range(node_count)}
    waits = [0] * node_count
    for maker, reader in edges:
        if reader not in readers[maker]:
            readers[maker].add(reader)
            waits[reader] += 1
    ready = [index for index, count in enumerate(waits) if count == 0]
    order: list[int] = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for reader in readers[node]:
            waits[reader] -= 1
            if waits[reader] == 0:
                heapq.heappush(ready, reader)
    return order + sorted(set(readers) - set(order))


def _in_order(graph: Graph) -> Graph:
    """The same graph with every node behind those it reads from: a layer of a later net may feed one of an earlier.

    Phases that wire the same layers in opposite order leave a circle; its layers keep the order of the net.
    """
    order = makers_first(len(graph.nodes), ((maker, reader) for maker, _, reader in graph.edges))
    place = {node: index for index, node in enumerate(order)}
    edges = sorted({(place[maker], blob, place[reader]) for maker, blob, reader in graph.edges})
    return Graph(graph.name, graph.phases, [graph.nodes[node] for node in order], [e for e in edges if e[0] < e[2]])


def _phases(net: NetReport) -> set[Phase]:
    return {TRAIN, TEST} if " and " in net.title else {net.phase}


def _add(
    graph: Graph,
    known: dict[bytes, Node],
    key: bytes,
    places: dict[str, tuple[int, int]],
    shaped: ShapedLayer,
    phases: set[Phase],
) -> None:
    parameter = shaped.parameter
    sources = [places[name] for name in parameter.bottom if name in places]
    in_place = len(parameter.bottom) == 1 and list(parameter.bottom) == list(parameter.top) and bool(sources)
    if key in known:
        node = known[key]
        node.phases |= phases
    else:
        node = known[key] = _node(shaped, phases)
        if in_place:
            graph.nodes[sources[0][0]].in_place.append(node)
        else:
            graph.nodes.append(node)
    if in_place:
        return
    index = next(index for index, other in enumerate(graph.nodes) if other is node)
    graph.edges += [(maker, blob, index) for maker, blob in sources]
    places.update({name: (index, number) for number, name in enumerate(top_names(shaped))})


def _key(parameter: LayerParameter, bottoms: list[str]) -> bytes:
    """What makes layers of two phases the same: their description, with the names of ``bottoms`` before splits."""
    plain = LayerParameter()
    plain.CopyFrom(parameter)
    for name in ("phase", "bottom", "loss_weight"):
        plain.ClearField(name)
    return plain.SerializeToString(deterministic=True) + repr(bottoms).encode()


def _node(shaped: ShapedLayer, phases: set[Phase]) -> Node:
    parameter = shaped.parameter
    shapes = ["?" if blob is None else " x ".join(map(str, blob.shape)) or "1 value" for blob in shaped.tops]
    boxes = [BlobBox(name, shape) for name, shape in zip(top_names(shaped), shapes, strict=True)]
    kind = parameter.type
    family = next((name for name, kinds in FAMILIES.items() if kind in kinds), "")
    if not family:
        family = "loss" if kind.endswith("Loss") or kind == "Accuracy" else "other"
    return Node(parameter.name, kind, family, _settings(parameter), set(phases), boxes)


def _settings(parameter: LayerParameter) -> str:
    """The settings that tell layers of a type apart: "64, 7 x 7 / 2, pad 3"."""
    convolution, pooling = parameter.convolution_param, parameter.pooling_param
    if parameter.HasField("inner_product_param"):
        return str(parameter.inner_product_param.num_output)
    if parameter.HasField("recurrent_param"):
        return str(parameter.recurrent_param.num_output)
    if parameter.HasField("convolution_param"):
        kernel = list(convolution.kernel_size) or [convolution.kernel_h, convolution.kernel_w]
        stride = list(convolution.stride) or [convolution.stride_h or 1, convolution.stride_w or 1]
        pad = list(convolution.pad) or [convolution.pad_h, convolution.pad_w]
        parts = [str(convolution.num_output), _window(kernel, stride)]
        parts += [f"pad {_one(pad)}"] if any(pad) else []
        parts += [f"group {convolution.group}"] if convolution.group > 1 else []
        return ", ".join(parts)
    if parameter.HasField("pooling_param"):
        method = type(pooling).PoolMethod.Name(pooling.pool)
        if pooling.global_pooling:
            return f"{method}, global"
        kernel = [pooling.kernel_size] if pooling.kernel_size else [pooling.kernel_h, pooling.kernel_w]
        stride = [pooling.stride_h, pooling.stride_w] if pooling.stride_h else [pooling.stride]
        pad = [pooling.pad_h, pooling.pad_w] if pooling.pad_h or pooling.pad_w else [pooling.pad]
        return ", ".join([method, _window(kernel, stride), *([f"pad {_one(pad)}"] if any(pad) else [])])
    if parameter.HasField("eltwise_param"):
        return type(parameter.eltwise_param).EltwiseOp.Name(parameter.eltwise_param.operation)
    if parameter.HasField("dropout_param"):
        return f"{parameter.dropout_param.dropout_ratio:g}"
    return ""


def _window(kernel: Sequence[int], stride: Sequence[int]) -> str:
    return _sizes(kernel) + (
        f" / {stride[0] if len(set(stride)) == 1 else _sizes(stride)}" if set(stride) != {1} else ""
    )


def _one(sizes: Sequence[int]) -> str:
    """One number where it is the same along all axes."""
    return str(sizes[0]) if len(set(sizes)) == 1 else _sizes(sizes)


def _sizes(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes if len(sizes) > 1 else [sizes[0]] * 2))


def to_dot(graph: Graph) -> str:
    """Return the graph in the language of graphviz, whose ``dot`` program draws it."""
    return "".join(f"{line}\n" for line in _dot_lines(graph))


def _dot_lines(graph: Graph) -> Iterator[str]:
    yield f"digraph {quoted(graph.name or 'network')} {{"
    yield '  node [shape=record, fontname="Helvetica", fontsize=10];'
    for index, node in enumerate(graph.nodes):
        layers = [
            f"{one.name}\n{one.kind} {one.settings}".rstrip() + _note(graph, one) for one in (node, *node.in_place)
        ]
        blobs = [f"<b{number}> {_escaped(f'{box.name}{chr(10)}{box.shape}')}" for number, box in enumerate(node.blobs)]
        parts = [*map(_escaped, layers), *(["{" + "|".join(blobs) + "}"] if blobs else [])]
        yield f'  n{index} [label="{{{"|".join(parts)}}}"];'
    for maker, blob, reader in graph.edges:
        yield f"  n{maker}:b{blob} -> n{reader};"
    yield "}"


def _note(graph: Graph, node: Node) -> str:
    return f"\n({graph.note(node)} only)" if graph.note(node) else ""


def quoted(text: str) -> str:
    """Text as a string of graphviz's language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    """Text within a record's label, where some signs have a meaning."""
    for sign in '\\{}|<>"':
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", "\\n")

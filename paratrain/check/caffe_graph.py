"""A network as pycaffe draws it: a node for each layer and one for each blob, and arrows between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from paratrain.check.graph import makers_first, quoted
from paratrain.errors import NetError
from paratrain.proto import LayerParameter, NetParameter, NetStateRule, upgrade_net

__all__ = ["DIRECTIONS", "CaffeEdge", "CaffeGraph", "CaffeNode", "build_caffe_graph", "caffe_graph_to_dot"]

DIRECTIONS = ("TB", "BT", "LR", "RL")
"""From where to where the data flows in the picture: T top, B bottom, L left, R right."""

_COLOURS = {"Convolution": "#ff8080", "Deconvolution": "#ff8080", "Pooling": "#ffb74d", "InnerProduct": "#d98cf5"}
_OTHER, _IN_PLACE, _BLOB = "#8fb4f0", "#90ee90", "#e0e0e0"


@dataclass(frozen=True)
class CaffeNode:
    """A layer or a blob."""

    lines: tuple[str, ...]
    colour: str
    is_blob: bool = False


@dataclass(frozen=True)
class CaffeEdge:
    """An arrow between nodes by their numbers; a layer that works in place has one that points both ways."""

    start: int
    stop: int
    label: str = ""
    is_both_ways: bool = False


@dataclass
class CaffeGraph:
    """Nodes, each behind those whose arrows lead to it where that is possible."""

    name: str
    direction: str
    nodes: list[CaffeNode] = field(default_factory=list)
    edges: list[CaffeEdge] = field(default_factory=list)


def build_caffe_graph(
    net: NetParameter,
    direction: str = "LR",
    *,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> CaffeGraph:
    """Return the graph of the layers that belong to ``phase``, or of all where None. ``display_lrm`` adds ``lr_mult``.

    Raises NetError for an unknown direction, and for a layer with include and exclude rules.
    """
    if direction not in DIRECTIONS:
        raise NetError(f"rankdir '{direction}': a picture of a network goes {', '.join(DIRECTIONS)}")
    upgraded = upgrade_net(net)
    graph = CaffeGraph(upgraded.name, direction)
    blobs: dict[str, int] = {}

    def blob(name: str) -> int:
        if name not in blobs:
            blobs[name] = len(graph.nodes)
            graph.nodes.append(CaffeNode((name,), _BLOB, is_blob=True))
        return blobs[name]

    for layer in upgraded.layer:
        if phase is not None and not _is_included(layer, phase):
            continue
        in_place = len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] == layer.top[0]
        bottoms = [blob(name) for name in layer.bottom]
        own = len(graph.nodes)
        colour = _IN_PLACE if in_place else _COLOURS.get(layer.type, _OTHER)
        graph.nodes.append(CaffeNode((layer.name, *_describe(layer, display_lrm)), colour))
        label = _made(layer) if label_edges else ""
        if in_place:
            graph.edges.append(CaffeEdge(bottoms[0], own, is_both_ways=True))
            continue
        graph.edges += [CaffeEdge(bottom, own) for bottom in bottoms]
        graph.edges += [CaffeEdge(own, blob(name), label) for name in layer.top]
    return _in_order(graph)


def _is_included(layer: LayerParameter, phase: int) -> bool:
    if layer.include and layer.exclude:
        raise NetError(
            f"layer '{layer.name}' ({layer.type}) has include rules and exclude rules; give it one kind, not both"
        )

    def meets(rule: NetStateRule) -> bool:
        return not rule.HasField("phase") or rule.phase == phase

    return any(map(meets, layer.include)) if layer.include else not any(
        rule.HasField("phase") and meets(rule) for rule in layer.exclude
    )  # fmt: skip


def _describe(layer: LayerParameter, display_lrm: bool) -> Iterator[str]:
    if layer.type in ("Convolution", "Deconvolution"):
        given = layer.convolution_param
        yield f"({layer.type})"
        yield f"kernel size: {_sides(given.kernel_size, given.kernel_h, given.kernel_w, 1)}"
        yield f"stride: {_sides(given.stride, given.stride_h, given.stride_w, 1)}"
        yield f"pad: {_sides(given.pad, given.pad_h, given.pad_w, 0)}"
    elif layer.type == "Pooling":
        pooling = layer.pooling_param
        yield f"({type(pooling).PoolMethod.Name(pooling.pool)} Pooling)"
        if pooling.global_pooling:
            yield "global"
        else:
            kernel = [pooling.kernel_size] if pooling.kernel_size else []
            yield f"kernel size: {_sides(kernel, pooling.kernel_h, pooling.kernel_w, 1)}"
            yield f"stride: {_sides([], pooling.stride_h, pooling.stride_w, pooling.stride)}"
            yield f"pad: {_sides([], pooling.pad_h, pooling.pad_w, pooling.pad)}"
    else:
        yield f"({layer.type})"
    if layer.type == "Data":
        yield f"batch: {layer.data_param.batch_size}"
    if display_lrm and layer.type in ("Convolution", "Deconvolution", "InnerProduct"):
        rates = [spec.lr_mult for spec in layer.param] or [1.0]
        yield f"lr mult: {', '.join(f'{rate:g}' for rate in rates)}"


def _sides(repeated: Sequence[int], height: int, width: int, default: int) -> str:
    sides = list(repeated) or ([height, width] if height or width else [default])
    return str(sides[0]) if len(set(sides)) == 1 else " x ".join(map(str, sides))


def _made(layer: LayerParameter) -> str:
    """How many channels, or values, a layer makes: it stands at the arrow."""
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    return str(layer.inner_product_param.num_output) if layer.type == "InnerProduct" else ""


def _in_order(graph: CaffeGraph) -> CaffeGraph:
    """The same graph with nodes behind their makers: a blob may be made by layers of both phases, and read in between."""
    order = makers_first(len(graph.nodes), ((edge.start, edge.stop) for edge in graph.edges))
    place = {node: index for index, node in enumerate(order)}
    edges = [CaffeEdge(place[e.start], place[e.stop], e.label, e.is_both_ways) for e in graph.edges]
    return CaffeGraph(graph.name, graph.direction, [graph.nodes[node] for node in order], edges)


def caffe_graph_to_dot(graph: CaffeGraph) -> str:
    """Return the graph in the language of graphviz, whose ``dot`` program draws it."""
    lines = [f"digraph {quoted(graph.name or 'Net')} {{", f"  rankdir={graph.direction};"]
    for index, node in enumerate(graph.nodes):
        shape = "octagon" if node.is_blob else "box"
        label = quoted("\n".join(node.lines)).replace("\n", "\\n")
        lines.append(f'  n{index} [label={label}, shape={shape}, style=filled, fillcolor="{node.colour}"];')
    for edge in graph.edges:
        settings = [f"label={quoted(edge.label)}"] * bool(edge.label) + ["dir=both"] * edge.is_both_ways
        listed = f" [{', '.join(settings)}]" if settings else ""
        lines.append(f"  n{edge.start} -> n{edge.stop}{listed};")
    return "\n".join([*lines, "}", ""])

"""pycaffe's ``caffe.draw``: pictures of networks. Graphviz is not needed."""

from __future__ import annotations

import os
from pathlib import Path

from paratrain.check.caffe_graph import CaffeGraph, build_caffe_graph, caffe_graph_to_dot
from paratrain.check.draw_caffe import render
from paratrain.errors import ParatrainError
from paratrain.proto import NetParameter, write_atomically

__all__ = ["NetGraph", "draw_net", "draw_net_to_file", "get_pydot_graph"]

_TEXT_FORMATS = ("dot", "raw", "gv")


class NetGraph:
    """The graph of a net, with the methods of pydot's graphs that draw one."""

    def __init__(self, graph: CaffeGraph) -> None:
        self._graph = graph

    def to_string(self) -> str:
        """Return the graph in the language of graphviz."""
        return caffe_graph_to_dot(self._graph)

    def create(self, prog: str | None = None, format: str = "png") -> bytes:  # noqa: A002  pydot's names
        """Return a file of this format: png, svg, pdf, eps, ps, jpg, dot or raw. ``prog`` is for pydot, and not used."""
        return self.to_string().encode() if format in _TEXT_FORMATS else render(self._graph, format)

    def write(self, path: str | os.PathLike[str], prog: str | None = None, format: str = "raw") -> bool:  # noqa: A002
        """Write such a file, whole or not at all."""
        write_atomically(path, self.create(prog, format))
        return True

    def create_png(self) -> bytes:
        """Return the picture as PNG."""
        return self.create(format="png")

    def create_svg(self) -> bytes:
        """Return the picture as SVG."""
        return self.create(format="svg")

    def write_png(self, path: str | os.PathLike[str]) -> bool:
        """Write the picture as PNG."""
        return self.write(path, format="png")

    def write_svg(self, path: str | os.PathLike[str]) -> bool:
        """Write the picture as SVG."""
        return self.write(path, format="svg")


def get_pydot_graph(
    caffe_net: NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> NetGraph:
    """Return the graph of a net. It is not pydot's own, but writes and makes the same kinds of files."""
    return NetGraph(
        build_caffe_graph(caffe_net, rankdir, label_edges=label_edges, phase=phase, display_lrm=display_lrm)
    )


def draw_net(
    caffe_net: NetParameter, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """Return a picture of a net as the bytes of a file of the kind ``ext``: png, svg, pdf, eps, ps, jpg, dot or raw.

    ``rankdir`` is where the data flows: LR, RL, TB or BT. ``phase`` leaves out the layers of the other one; ``display_lrm``
    writes ``lr_mult`` into layers that learn. Raises NetError, ParatrainError for another ``ext``.
    """
    return get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).create(format=ext.lower())


def draw_net_to_file(
    caffe_net: NetParameter,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw a net to a file, whose name ends in .png, .svg, .pdf ...: see :func:`draw_net`."""
    ext = Path(filename).suffix[1:]
    if not ext:
        raise ParatrainError(
            f"{os.fspath(filename)}: the name must end in .png, .svg, .pdf or .dot, which says what to draw"
        )
    write_atomically(filename, draw_net(caffe_net, rankdir, ext, phase, display_lrm))

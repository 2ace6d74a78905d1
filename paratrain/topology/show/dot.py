"""A plan in Graphviz's language: the links as lines, the tree as arrows, NUMA nodes as boxes."""

from __future__ import annotations

from collections.abc import Iterator

from paratrain.topology.planning.view import AnyPlan, View, view_of
from paratrain.topology.words import duration, rate


def draw_dot(plan: AnyPlan) -> str:
    """The text of a dot file; `dot -Tsvg` and `neato` draw it. Links that no edge of the tree uses do not shape it.

    Of several nodes only the links of the tree are in it.
    """
    return "\n".join(_lines(view_of(plan))) + "\n"


def _lines(view: View) -> Iterator[str]:
    yield "digraph topology {"
    yield f"  label={_quoted(f'{view.title}: {view.machine.source}')}; labelloc=t; fontname=Helvetica;"
    yield "  node [shape=box, style=rounded, fontname=Helvetica]; edge [fontname=Helvetica, fontsize=10];"
    for place, (name, numbers) in enumerate(view.groups):
        if name:
            yield f"  subgraph cluster_{place} {{"
            yield f"    label={_quoted(name)};"
        for number in numbers:
            mark = ", penwidth=3" if view.tree is not None and number == view.tree.root else ""
            details = filter(None, (view.names[number], getattr(view.members[number], "name", "")))
            yield f"    m{number} [label={_quoted(chr(10).join(details))}{mark}];"
        if name:
            yield "  }"
    for edge in view.edges:
        label = f"{edge.level}: {edge.link_class.word}\n{rate(edge.bytes_per_s)}, {duration(edge.latency_s)}"
        shown = f"label={_quoted(label)}, tooltip={_quoted(edge.reason)}, penwidth=3"
        yield f"  m{edge.parent} -> m{edge.child} [{shown}];"
    if view.node_count > 1:
        yield "}"
        return
    in_tree = {frozenset((edge.parent, edge.child)) for edge in view.edges}
    for one in range(len(view.members)):
        for other in range(one + 1, len(view.members)):
            if frozenset((one, other)) not in in_tree:
                figure = view.figure(one, other)
                shown = (
                    f"label={_quoted(view.link_class(one, other).word)}, tooltip={_quoted(rate(figure.bytes_per_s))}"
                )
                yield f"  m{one} -> m{other} [{shown}, dir=none, color=gray, style=dashed, constraint=false];"
    yield "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if c.isprintable() else " " for c in escaped) + '"'

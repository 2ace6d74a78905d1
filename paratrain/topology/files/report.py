"""A plan as plain values for JSON, in the form of schema 1; docs/topology.md explains every field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from paratrain.topology.costs.cost import Prediction
from paratrain.topology.files.saved import SCHEMA, machine_values
from paratrain.topology.planning.view import AnyPlan, View, view_of
from paratrain.topology.tree import Tree


def plan_values(plan: AnyPlan, verdicts: Mapping[tuple[int, int], str] | None = None) -> dict[str, Any]:
    """The machine, its links, the tree, predictions and warnings as lists, dictionaries, numbers and texts.

    Members are named by their indices throughout; in a plan for several nodes the tree numbers them from 0, node by
    node. `gbps` is 10^9 bytes a second in one direction. `verdicts` says what tests of links have found, by pair of
    indices.
    """
    from paratrain import __version__

    view = view_of(plan)
    machine = machine_values(replace(view.machine, warnings=view.warnings), verdicts)
    versions = {"driver": view.machine.driver_version, "cuda": view.machine.cuda_version, "paratrain": __version__}
    warnings = machine.pop("warnings")
    return {
        "schema": SCHEMA,
        "versions": {name: version or None for name, version in versions.items()},
        **machine,
        "nodes": view.node_count,
        "shape": plan.shape if view.tree is not None else None,
        "tree": _tree_values(view),
        "shards": [_bare(view, tree) for tree in plan.trees] if plan.shape == "sharded" else [],
        "predictions": [prediction_values(prediction) for prediction in plan.predictions],
        "warnings": warnings,
    }


def prediction_values(prediction: Prediction) -> dict[str, Any]:
    """One prediction as plain values; times are in seconds."""
    return {
        "method": prediction.method,
        "bytes": prediction.byte_count,
        "reduce_s": prediction.reduce_s,
        "broadcast_s": prediction.broadcast_s,
        "chunks": prediction.chunk_count,
        "source": prediction.origin,
        "uncertainty": prediction.uncertainty,
        "best": prediction.best,
    }


def _tree_values(view: View) -> dict[str, Any]:
    tree = view.tree
    members = "gpus" if view.machine.gpus else "ranks"
    if tree is None:
        return {"members": members, "shape": None, "root": None, "depth": 0, "edges": []}
    edges = [
        {
            "parent": _number(view, edge.parent),
            "child": _number(view, edge.child),
            "level": edge.level,
            "class": edge.link_class.word,
            "transport": edge.transport,
            "reason": edge.reason,
            "gbps": round(edge.bytes_per_s / 1e9, 9),
            "latency_us": round(edge.latency_s * 1e6, 6),
            "source": edge.origin,
        }
        for edge in view.edges
    ]
    values = {"members": members, "shape": view.plan.tree_shape, "root": _number(view, tree.root), "depth": tree.depth}
    return {**values, "edges": edges}


def _bare(view: View, tree: Tree) -> dict[str, Any]:
    """The tree of one shard: its root and its edges."""
    edges = [{"parent": _number(view, parent), "child": _number(view, child)} for parent, child in tree.edges()]
    return {"root": _number(view, tree.root), "edges": edges}


def _number(view: View, member: int) -> int:
    return view.members[member].index if view.node_count == 1 else member

"""A plan as plain values for JSON, in the form of schema 1."""

from __future__ import annotations

from typing import Any

from paratrain.topology.cost import figure_between
from paratrain.topology.plan import Plan

SCHEMA = 1


def plan_values(plan: Plan) -> dict[str, Any]:
    """The machine, its links, the tree, predictions and warnings as lists, dictionaries, numbers and texts.

    GPUs are named by their indices throughout. `gbps` is 10^9 bytes a second in one direction.
    """
    machine = plan.machine
    return {
        "schema": SCHEMA,
        "source": machine.source,
        "no_gpu_reason": machine.no_gpu_reason or None,
        "versions": {"driver": machine.driver_version or None, "cuda": machine.cuda_version or None},
        "gpus": [
            {
                "index": gpu.index,
                "nvml_index": gpu.nvml_index,
                "bus_id": gpu.bus_id or None,
                "uuid": gpu.uuid or None,
                "name": gpu.name or None,
                "memory_bytes": gpu.memory_bytes,
                "compute_capability": gpu.compute_capability or None,
                "numa": gpu.numa_node,
                "cpus": gpu.cpu_affinity or None,
                "mig": gpu.mig,
            }
            for gpu in machine.gpus
        ],
        "switch": machine.nvswitch,
        "links": _links(plan),
        "tree": _tree(plan),
        "predictions": [
            {
                "method": prediction.method,
                "bytes": prediction.byte_count,
                "reduce_s": prediction.reduce_s,
                "broadcast_s": prediction.broadcast_s,
                "source": prediction.origin,
                "uncertainty": prediction.uncertainty,
            }
            for prediction in plan.predictions
        ],
        "warnings": [
            {"code": warning.code, "pair": list(warning.pair) if warning.pair else None, "message": warning.message}
            for warning in machine.warnings
        ],
    }


def _links(plan: Plan) -> list[dict[str, Any]]:
    values = []
    machine = plan.machine
    for one in range(len(machine.gpus)):
        for other in range(one + 1, len(machine.gpus)):
            link = machine.link(plan.index(one), plan.index(other))
            figure = figure_between(machine, one, other)
            values.append(
                {
                    "a": link.a,
                    "b": link.b,
                    "class": link.link_class.word,
                    "nvlinks": link.link_class.nvlink_count,
                    "p2p_read": link.p2p_read or None,
                    "p2p_write": link.p2p_write or None,
                    "staged": figure.staged,
                    "gbps": round(figure.bytes_per_s / 1e9, 3),
                    "latency_us": round(figure.latency_s * 1e6, 3),
                    "source": figure.origin,
                }
            )
    return values


def _tree(plan: Plan) -> dict[str, Any]:
    tree = plan.tree
    if tree is None:
        return {"root": None, "depth": 0, "edges": []}
    levels = tree.levels()
    edges = [
        {
            "parent": plan.index(parent),
            "child": plan.index(child),
            "level": levels[child],
            "class": plan.machine.link_class(plan.index(parent), plan.index(child)).word,
        }
        for parent, child in tree.edges()
    ]
    return {"root": plan.index(tree.root), "depth": tree.depth, "edges": edges}

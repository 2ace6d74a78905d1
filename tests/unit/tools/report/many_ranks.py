"""Metrics of a run with as much as a page has to find room for: ranks, hosts with long names, layers, warnings, test nets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

PARTS = ("data_s", "forward_s", "backward_s", "exchange_s", "update_s")
HOSTS = ["node-a17.rack-12.cluster.example.org", "node-b02.rack-03.cluster.example.org", "c"]
LONG = "a_name_without_a_single_space_" * 6


def many_ranks(path: Path, *, rank_count: int = 12, layer_count: int = 60, iteration_count: int = 3000) -> Path:
    """Write the metrics of such a run, in which rank 5 is slow, to ``path``."""
    per_host = -(-rank_count // len(HOSTS))
    layers = [
        {"name": f"inception_{number}/3x3_reduce_and_relu", "type": "Convolution"} for number in range(layer_count)
    ]
    run: dict[str, Any] = {
        "version": "0.1.0",
        "command": ["paratrain", "train", f"/data/{LONG}/solver.prototxt", "--metrics", "run.jsonl"],
        "folder": f"/home/{LONG}",
        "net": "GoogLeNet <with & in its name>",
        "iteration": 0,
        "max_iter": iteration_count,
        "solver": f'net: "{LONG}"\nbase_lr: 0.01\n' + "".join(f"stepvalue: {step}\n" for step in range(30)),
        "backend": "oneDNN 3.2 (avx512_core), 4 threads",
        "images_per_iteration": 384,
        "hosts": [HOSTS[rank // per_host] for rank in range(rank_count)],
        "threads": [4] * rank_count,
        "parents": [None, *((rank - 1) // 2 for rank in range(1, rank_count))],
        "parameter_count": 6998552,
        "layers": layers,
        "iterations_per_epoch": 1281167 / 384,
    }
    lines: list[dict[str, Any]] = [{"run": run, "time": 1.7e9}]
    lines += [{"warning": f"rank 3 waits for {LONG}", "time": 1.7e9}] * 3
    lines.append({"warning": "warning T12: <b>two</b> ranks share a core", "time": 1.7e9})
    for iteration in range(0, iteration_count, 5):
        loss = 7 * math.exp(-iteration / 800) + 0.2 * math.sin(iteration)
        each = {part: [0.02 * (1 + place) * (1 + (rank == 5)) for rank in range(rank_count)]
                for place, part in enumerate(PARTS)}  # fmt: skip
        lines.append({
            "iteration": iteration, "loss": loss if iteration != 500 else None, "lr": 0.01 * 0.5 ** (iteration // 1000),
            "loss_min": loss - 0.3, "loss_max": loss + 0.4, "images_per_s": 12345.6 + iteration, "data_share": 0.06,
            **{part: 0.02 * (1 + place) for place, part in enumerate(PARTS)}, "exchange_predicted_s": 0.11, "bad_records": 0,
            "train_outputs": {"loss1/loss": 0.3 * loss, "loss2/loss": 0.3 * loss, "loss3/loss": loss}, "ranks": each,
            "time": 1.7e9 + 0.4 * iteration,
        })  # fmt: skip
        if iteration % 500 == 0:
            outputs = {"loss3/top-1": 0.1, "accuracy": 1 - math.exp(-iteration / 1000), f"accuracy_{LONG}": 0.5}
            for net in (0, 1):
                scores = {**outputs, "loss": loss, "each": [0.25, 0.75]}
                lines.append(
                    {"iteration": iteration, "test_net": net, "outputs": scores, "time": 1.7e9 + 0.4 * iteration}
                )
    seconds = {layer["name"]: 0.5 + number % 7 for number, layer in enumerate(layers)}
    lines.append({"layers": {"steps": iteration_count, "forward_s": seconds, "backward_s": seconds}, "time": 1.8e9})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path

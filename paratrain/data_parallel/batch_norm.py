"""What ranks do with batch normalization: whose running statistics count, and over which batch mean and variance are taken."""

from __future__ import annotations

from paratrain.data_parallel.ranks import TreeRanks
from paratrain.net import Net

__all__ = ["BATCH_NORM_MODES", "describe_batch_norm", "set_batch_norm"]

BATCH_NORM_MODES = {
    "root": "each rank normalizes with its own batch; the running statistics are the root's",
    "average": "each rank normalizes with its own batch; the running statistics are averaged over the ranks in every step",
    "sync": "mean and variance are those of the batches of all ranks",
}


def set_batch_norm(net: Net, ranks: TreeRanks, mode: str) -> None:
    """Let the layers of ``net``, and the ranks, work as ``mode`` says, one of BATCH_NORM_MODES.

    What a layer keeps for statistics is the same on all ranks when a step ends, except that with "root" it becomes so when
    the next one begins. Layers that use stored statistics (``use_global_stats``, ``frozen``) do so in every mode.
    """
    ranks.averages_statistics = mode == "average"
    net.context.normalizes_over_ranks = mode == "sync"


def describe_batch_norm(net: Net, ranks: TreeRanks) -> str:
    """What a log says of it; "" for a net without running statistics."""
    if not net.parameters.statistics.count:
        return ""
    mode = "sync" if net.context.normalizes_over_ranks else "average" if ranks.averages_statistics else "root"
    return f"{mode}: {BATCH_NORM_MODES[mode]}"

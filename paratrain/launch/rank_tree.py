"""The tree over the ranks of a run: the one that follows from where they run, or the one that a file holds."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

from paratrain.comm.communicator import Communicator
from paratrain.data_parallel import tree_by_places
from paratrain.data_parallel.automatic import node_of_figures
from paratrain.errors import TopologyError
from paratrain.launch import options
from paratrain.topology.files.saved import read_saved_machine
from paratrain.topology.files.saved_tree import SavedTree, place_on_ranks, read_saved_tree
from paratrain.topology.machine import Machine
from paratrain.topology.tree import Tree
from paratrain.topology.words import SHAPES

__all__ = ["RankTree", "add_topology", "choose_tree", "describe_tree"]

logger = logging.getLogger(__name__)

_MOST_RANKS = 16  # of which the log names each


@dataclass(frozen=True)
class RankTree:
    """The tree over all ranks, with rank 0 as its root, and a line that says what it is like and where it comes from.

    `machine` holds the figures of links, measured perhaps, of the file that it comes from; None where it is from no file.
    """

    tree: Tree
    description: str
    machine: Machine | None = None


def add_topology(parser: argparse.ArgumentParser) -> None:
    """Add ``--topology``."""
    options.add(
        parser,
        "topology",
        metavar="FILE",
        help="join the ranks by the tree that `paratrain topology --save FILE` has saved",
    )


def choose_tree(path: str | None, communicator: Communicator) -> RankTree:
    """The tree of the file `path`; where it is None, the one that follows from where ranks run.

    All ranks call it. Rank 0 alone reads the file, so that all have the same tree, whatever other nodes hold under that
    name. TopologyError, the same on all ranks, for a file that cannot be used or is for other counts of ranks.
    """
    if path is None:
        tree, warnings = tree_by_places(communicator)
        for warning in warnings if communicator.rank == 0 else ():
            logger.warning("warning %s: %s", warning.code, warning.message)
        return RankTree(tree, f"{describe_tree(tree)} (by the nodes on which ranks run)")
    read = communicator.broadcast_object(_read(path) if communicator.rank == 0 else None)
    if isinstance(read, TopologyError):
        raise read
    saved = read_saved_tree(read, path)
    tree = place_on_ranks(saved, communicator.node_of_rank)
    machine = read_saved_machine(read, path)
    if set(saved.node_of_member) == {0}:
        machine = node_of_figures(machine, saved.member_order)
    return RankTree(tree, f"{describe_tree(tree)} ({_origin(saved)})", machine)


def describe_tree(tree: Tree) -> str:
    """``rank 0 adds 1, 2; rank 2 adds 3``, in the order of the additions; for many ranks the count and the depth."""
    if tree.size > _MOST_RANKS:
        return f"{tree.size} ranks, depth {tree.depth}, rank {tree.root} adds {len(tree.children[tree.root])} of them"
    parents = [rank for rank in tree.top_down() if tree.children[rank]]
    return "; ".join(f"rank {rank} adds {', '.join(map(str, tree.children[rank]))}" for rank in parents)


def _read(path: str) -> bytes | TopologyError:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        return TopologyError(f"--topology {path}: cannot be read: {error.strerror}")


def _origin(saved: SavedTree) -> str:
    """Where a saved tree comes from, what it was made for, and how its members became ranks where that is not plain."""
    shape = f"the {SHAPES.get(saved.shape, 'tree')} "
    count = len(saved.numbers)
    text = f"{shape}of {count} {saved.kind}{'' if count == 1 else 's'} in {saved.source}"
    numbers = [saved.numbers[member] for member in saved.member_order]
    if numbers != list(range(count)) and count <= _MOST_RANKS:
        text += f"; ranks in place of {saved.kind}s {', '.join(map(str, numbers))}"
    if saved.shard_count:
        text += f"; its {saved.shard_count} trees on shards are not used"
    return text

"""The tree of a saved plan, and its place on the ranks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.errors import TopologyError
from paratrain.topology.files.saved_values import Fields, saved_values
from paratrain.topology.planner import binomial
from paratrain.topology.tree import Tree


@dataclass(frozen=True)
class SavedTree:
    """A tree over the members 0, 1, 2 ... of a saved plan.

    `kind` says what members are ("GPU" or "rank"), `numbers` how the file numbers them, `node_of_member` on which of
    the plan's nodes they are, `shape` what the plan calls its tree ("chain"; empty if it does not say). `shard_count`
    is the count of trees on shards that the plan found to be faster still; 0 where the tree itself is the fastest.
    """

    source: str
    kind: str
    numbers: tuple[int, ...]
    node_of_member: tuple[int, ...]
    tree: Tree
    shape: str = ""
    shard_count: int = 0

    @property
    def member_order(self) -> list[int]:
        """The members in the order in which they become ranks: those of each node in theirs, but its uppermost one first."""
        levels = self.tree.levels()
        uppermost: dict[int, int] = {}
        for member, node in enumerate(self.node_of_member):
            if node not in uppermost or levels[member] < levels[uppermost[node]]:
                uppermost[node] = member
        root_node = self.node_of_member[self.tree.root]
        return sorted(
            range(self.tree.size),
            key=lambda member: (
                self.node_of_member[member] != root_node,
                self.node_of_member[member],
                member != uppermost[self.node_of_member[member]],
            ),
        )


def read_saved_tree(content: bytes, source: str) -> SavedTree:
    """The tree in the content of the file `source`. TopologyError if there is none, or none that joins all members."""
    top = Fields(saved_values(content, source), source, "")
    tree = top.object("tree")
    of_ranks = tree.get("members") == "ranks"
    edges = [(edge.whole("parent"), edge.whole("child")) for edge in tree.objects("edges")]
    listed = top.objects("cpu_ranks" if of_ranks else "gpus")
    if not listed:
        raise TopologyError(f"{source}: the saved plan is of a machine without GPUs, and holds no tree of ranks")
    node_count = top.whole("nodes", least=1) if top.get("nodes") is not None else 1
    numbers = tuple(member.whole("index") for member in listed)
    nodes = [node for node in range(node_count) for _ in listed]
    if node_count > 1:  # members of several nodes are numbered through
        numbers = tuple(range(len(nodes)))
    member_of = {number: member for member, number in enumerate(numbers)}
    kind = "rank" if of_ranks else "GPU"
    for number in [tree.whole("root"), *(end for edge in edges for end in edge)]:
        if number not in member_of:
            raise TopologyError(f"{source}: its tree names {kind} {number}, which the file does not list")
    try:
        planned = Tree.from_edges(
            len(numbers), member_of[tree.whole("root")], [(member_of[a], member_of[b]) for a, b in edges]
        )
        planned.validate()
    except TopologyError as error:
        raise TopologyError(f"{source}: does not hold a tree of all its members: {error}") from error
    shards = top.objects("shards") if top.get("shards") is not None else []
    return SavedTree(source, kind, numbers, tuple(nodes), planned, tree.text("shape"), len(shards))


def place_on_ranks(saved: SavedTree, node_of_rank: Sequence[int]) -> Tree:
    """The tree over the ranks of a run, where `node_of_rank[r]` is the number of the node on which rank r runs.

    The root becomes rank 0 and the other members the other ranks in their order (as in `Plan.rank_order`), node by
    node, the root's node first. A plan of one node serves on each of several: their lowest ranks, at which its tree has
    its root, are joined by a binomial tree, and a rank adds the children of its own node first. TopologyError unless the
    counts match.
    """
    members = _by_node(saved.node_of_member, saved.member_order)
    ranks = _by_node(node_of_rank, range(len(node_of_rank)))
    each_serves = len(members) == 1 and all(len(node) == len(members[0]) for node in ranks)
    if not each_serves and [len(node) for node in members] != [len(node) for node in ranks]:
        raise TopologyError(_mismatch(saved, members, ranks))
    edges = []
    for node in ranks if each_serves else [[rank for group in ranks for rank in group]]:
        rank_of = dict(zip((member for group in members for member in group), node, strict=True))
        edges += [(rank_of[parent], rank_of[child]) for parent, child in saved.tree.edges()]
    if each_serves:
        edges += [(ranks[above][0], ranks[below][0]) for above, below in binomial(len(ranks)).edges()]
    return Tree.from_edges(len(node_of_rank), 0, edges)


def _by_node(node_of: Sequence[int], order: Sequence[int]) -> list[list[int]]:
    """The numbers of `order` by their node."""
    groups: dict[int, list[int]] = {}
    for number in order:
        groups.setdefault(node_of[number], []).append(number)
    return list(groups.values())


def _mismatch(saved: SavedTree, members: Sequence[Sequence[int]], ranks: Sequence[Sequence[int]]) -> str:
    planned = [len(node) for node in members]
    found = " and ".join(sorted({_count(len(node), "rank") for node in ranks}))
    where = "on one node" if len(ranks) == 1 else f"on each of {len(ranks)} nodes"
    if len(planned) == 1:
        return (
            f"{saved.source}: its tree joins {_count(planned[0], saved.kind)} of one node, but this run has {found} {where}; "
            f"start {_count(planned[0], 'rank')} on every node, or save a plan for as many as there are"
        )
    return (
        f"{saved.source}: its tree joins {_count(sum(planned), saved.kind)} of {len(planned)} nodes, but this run has {found} "
        f"{where}; start {_count(planned[0], 'rank')} on each of {len(planned)} nodes, or save a plan for this run"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

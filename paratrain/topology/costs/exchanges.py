"""The predicted time of exchanges that are no single tree: rings, halving and doubling, two levels, two trees at once.

All but the last go in rounds: every member sends and receives at once, and a round lasts as long as its slowest transfer,

    round = max over transfers e of  latency_e + max(bytes_e / rate_e, max over segments s on e of  load_s / capacity_s)

with load_s the bytes of all transfers of the round over s. On links all alike that are not shared, for p members, N bytes,
latency a and b seconds a byte:

    ring (Patarasuk and Yuan 2009)                  2 (p-1) a + 2 (p-1)/p N b
    recursive doubling                              log2 p (a + N b)
    halving and doubling (Rabenseifner 2004)        2 log2 p a + 2 (p-1)/p N b
    two levels, m in a group, g groups              2 (m-1) a1 + 2 (m-1)/m N b1 + 2 (g-1) a2 + 2 (g-1)/g (N/m) b2
    two binary trees (Sanders, Speck, Traeff 2009)  about 2 log2 p a' + 2 N b, in chunks

The latter is the form of NCCL's double binary tree: every member is inner in one tree and a leaf in the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.topology.costs.contention import Fabric, Segment
from paratrain.topology.costs.cost import Prediction, predict_trees, prediction
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.tree import Tree

Transfer = tuple[int, int, float]  # source, target, bytes


def round_seconds(fabric: Fabric, transfers: Sequence[Transfer]) -> float:
    """The seconds of one round; see above."""
    loads: dict[Segment, float] = {}
    for source, target, byte_count in transfers:
        for segment in fabric.path(source, target):
            loads[segment] = loads.get(segment, 0.0) + byte_count
    longest = 0.0
    for source, target, byte_count in transfers:
        figure = fabric.figure(source, target)
        shared = max((loads[name] / fabric.capacity(name) for name in fabric.path(source, target)), default=0.0)
        longest = max(longest, figure.latency_s + max(byte_count / figure.bytes_per_s, shared))
    return longest


def ring_round(ring: Sequence[int], byte_count: float) -> list[Transfer]:
    """One round of a ring of p members that sum N bytes: each sends N / p bytes to the next."""
    size = len(ring)
    return [(member, ring[(at + 1) % size], byte_count / size) for at, member in enumerate(ring) if size > 1]


def predict_ring(fabric: Fabric, ring: Sequence[int], byte_count: int, method: str = "ring") -> Prediction:
    """A ring's reduce-scatter, then its all-gather: p - 1 rounds each."""
    transfers = ring_round(ring, byte_count)
    seconds = (len(ring) - 1) * round_seconds(fabric, transfers)
    return prediction(method, byte_count, seconds, seconds, _figures(fabric, [transfers]))


def doubling_rounds(members: Sequence[int], byte_count: float, halving: bool) -> list[list[Transfer]]:
    """The rounds of recursive doubling, or of halving and then doubling.

    With p members and q the largest power of two in p, the last p - q hand their buffers to the first ones before and get
    the sums after.
    """
    size = len(members)
    power = 1 << (size.bit_length() - 1)
    extra = [(members[power + at], members[at]) for at in range(size - power)]
    first = [[(source, target, byte_count) for source, target in extra]] if extra else []
    last = [[(target, source, byte_count) for source, target in extra]] if extra else []
    spans = [1 << bit for bit in range(power.bit_length() - 1)]

    def swap(span: int, amount: float) -> list[Transfer]:
        return [(members[at], members[at ^ span], amount) for at in range(power)]

    if not halving:
        return first + [swap(span, byte_count) for span in spans] + last
    down = [swap(span, byte_count * span / power) for span in reversed(spans)]
    return first + down + down[::-1] + last


def predict_doubling(fabric: Fabric, members: Sequence[int], byte_count: int) -> Prediction:
    """Recursive doubling: everybody swaps the whole buffer with ever farther partners; there is no second half."""
    rounds = doubling_rounds(members, byte_count, halving=False)
    seconds = sum(round_seconds(fabric, transfers) for transfers in rounds)
    return prediction("recursive doubling", byte_count, seconds, 0.0, _figures(fabric, rounds))


def predict_halving(fabric: Fabric, members: Sequence[int], byte_count: int) -> Prediction:
    """Rabenseifner's exchange: a reduce-scatter by halving the buffer, an all-gather by doubling it again."""
    rounds = doubling_rounds(members, byte_count, halving=True)
    times = [round_seconds(fabric, transfers) for transfers in rounds]
    middle = len(times) // 2
    up, down = sum(times[:middle]), sum(times[middle:])
    return prediction("halving and doubling", byte_count, up, down, _figures(fabric, rounds))


def predict_two_levels(fabric: Fabric, groups: Sequence[Sequence[int]], byte_count: int) -> Prediction:
    """Rings inside the groups, all at once, and rings over the groups, one for each of the shards that these leave.

    `groups` are of one size m; the member at place i of each group takes part in ring i over the groups.
    """
    inner_size, group_count = len(groups[0]), len(groups)
    inner = [transfer for group in groups for transfer in ring_round(group, byte_count)]
    across = [
        transfer
        for at in range(inner_size)
        for transfer in ring_round([group[at] for group in groups], byte_count / inner_size)
    ]
    inside = (inner_size - 1) * round_seconds(fabric, inner)
    between = (group_count - 1) * round_seconds(fabric, across)
    total = inside + between
    return prediction("rings on two levels", byte_count, total, total, _figures(fabric, [inner, across]))


def predict_two_trees(fabric: Fabric, members: Sequence[int], byte_count: int) -> Prediction:
    """Two binary trees at once, half of the buffer each, in the count of chunks that is fastest."""
    return predict_trees(fabric, two_trees(members), byte_count, "two binary trees (as in NCCL)")


def two_trees(members: Sequence[int]) -> list[Tree]:
    """Two binary trees over the members, in the second of which the places are shifted by one.

    The first is the in-order binary tree: places counted from 1, the odd ones are leaves. Shifted by one, cyclically,
    the leaves become inner and the inner ones leaves (for an odd count but for one member).
    """
    size = len(members)
    edges = _in_order_edges(size)
    trees = []
    for shift in (0, 1):
        named = [(members[(above + shift) % size], members[(below + shift) % size]) for above, below in edges]
        below_any = {below for _, below in named}
        root = next(member for member in members if member not in below_any)
        trees.append(Tree.from_edges(size, root, named))
    return trees


def _in_order_edges(size: int) -> list[tuple[int, int]]:
    """The (parent, child) edges of the in-order binary tree over 0 .. size-1, children in the order of size."""
    edges = []
    spans: list[tuple[int, int, int | None]] = [(0, size, None)]
    for low, high, above in spans:
        if low == high:
            continue
        length = high - low
        half = 1 << (length.bit_length() - 1)  # the inner member of a span of 2^k - 1 or more is number 2^(k-1)
        middle = low + half - 1 if length > 1 else low
        if above is not None:
            edges.append((above, middle))
        spans.append((middle + 1, high, middle))
        spans.append((low, middle, middle))
    return edges


def _figures(fabric: Fabric, rounds: Sequence[Sequence[Transfer]]) -> set[LinkFigure]:
    return {fabric.figure(source, target) for transfers in rounds for source, target, _ in transfers}

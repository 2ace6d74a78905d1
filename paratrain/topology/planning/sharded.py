"""Several trees at once, each with another root, each for its own shard of the buffer.

As no link idles while others work, the whole takes hardly longer than a reduction to one member's port; but each root
applies the update to its shard. The trees are packed as MXNet's tree exchange and Blink (Wang et al. 2020, arXiv
1910.04940) pack theirs: a link that one tree uses costs the next ones more.
"""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.topology.costs.contention import Fabric
from paratrain.topology.costs.cost import Prediction, predict_trees, prediction
from paratrain.topology.costs.exchanges import predict_ring
from paratrain.topology.costs.schedules import broadcast_tasks, reduce_tasks
from paratrain.topology.costs.simulate import finish_time
from paratrain.topology.planning.growth import edge_seconds_of, grow, in_order_of_readiness
from paratrain.topology.tree import Tree

PACKED = 8  # members up to which trees are packed link by link
NAME = "trees on shards"


def best_shards(fabric: Fabric, byte_count: int) -> tuple[tuple[Tree, ...], Prediction]:
    """The set of trees, one for each member as its root, with the least predicted time."""
    shard_bytes = byte_count / fabric.size
    ring = ring_order(fabric, shard_bytes)
    stars = stars_in_turn(range(fabric.size))
    compared = [
        (predict_trees(fabric, stars, byte_count, NAME), stars),
        (predict_ring(fabric, ring, byte_count, NAME), chains_round(ring)),
    ]
    if fabric.size <= PACKED:
        # Packed trees meet on links at times that no closed formula tells.
        trees = packed(fabric, shard_bytes)
        up, down = (finish_time(fabric, tasks(trees, byte_count)) for tasks in (reduce_tasks, broadcast_tasks))
        used = {fabric.figure(*edge) for tree in trees for edge in tree.edges()}
        compared.append((prediction(NAME, byte_count, up, down, used), trees))
    best, trees = min(compared, key=lambda one: float(f"{one[0].total_s:.9e}"))
    return tuple(trees), best


def stars_in_turn(members: Sequence[int]) -> list[Tree]:
    """A star around each member, which adds those after it in their order, cyclically.

    So no member is asked by two roots at once: in step i, the member at place m sends to the one at place m - i.
    """
    size = len(members)
    return [
        Tree.from_edges(size, root, [(root, members[(at + step) % size]) for step in range(1, size)])
        for at, root in enumerate(members)
    ]


def chains_round(ring: Sequence[int]) -> list[Tree]:
    """A chain under each member of a ring, all in one direction: what a ring's reduce-scatter does."""
    size = len(ring)
    return [
        Tree.from_edges(
            size, ring[at], [(ring[(at + step) % size], ring[(at + step + 1) % size]) for step in range(size - 1)]
        )
        for at in range(size)
    ]


def packed(fabric: Fabric, shard_bytes: float) -> list[Tree]:
    """A tree grown under each member in turn; what a tree loads costs the later ones that much more."""
    places = range(fabric.size)
    loads: dict[str, int] = {}
    trees = []
    for root in places:
        seconds = [[_loaded(fabric, child, above, shard_bytes, loads) for child in places] for above in places]
        parents = grow(seconds, root)
        tree = in_order_of_readiness(parents, edge_seconds_of(parents, seconds))
        trees.append(tree)
        for parent, child in tree.edges():
            for segment in fabric.path(child, parent):
                loads[segment] = loads.get(segment, 0) + 1
    return trees


def _loaded(fabric: Fabric, source: int, target: int, byte_count: float, loads: dict[str, int]) -> float:
    if source == target:
        return 0.0
    figure = fabric.figure(source, target)
    waits = max((loads.get(name, 0) / fabric.capacity(name) for name in fabric.path(source, target)), default=0.0)
    return figure.latency_s + byte_count * (1 / figure.bytes_per_s + waits)


def ring_order(fabric: Fabric, byte_count: float) -> list[int]:
    """An order of the members in which each is near the next, and the last near the first.

    The nearest member not yet in the ring comes next; then parts of the ring are turned round for as long as that makes
    the slowest link, or else the sum over the links, faster (2-opt; up to 16 members).
    """
    size = fabric.size
    places = range(size)
    seconds = [[0.0 if a == b else fabric.seconds(a, b, byte_count) for b in places] for a in places]
    parent = grow(seconds, 0, 1)
    follower = {above: member for member, above in enumerate(parent) if above is not None}
    ring = [0]
    while ring[-1] in follower:
        ring.append(follower[ring[-1]])

    def price(order: Sequence[int]) -> tuple[float, float]:
        links = [seconds[a][b] for a, b in zip(order, [*order[1:], order[0]], strict=True)]
        return max(links), sum(links) * (1 - 1e-12)

    if size > 16:
        return ring
    best = price(ring)
    for _ in range(size):
        turned = [ring[:a] + ring[a:b][::-1] + ring[b:] for a in range(1, size - 1) for b in range(a + 2, size + 1)]
        if not turned:
            break
        first = min(turned, key=price)
        if price(first) >= best:
            break
        ring, best = first, price(first)
    return ring

"""A quick score for the many trees that a search compares: the formula of `cost`, on plain lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paratrain.topology.costs.contention import Fabric
from paratrain.topology.costs.cost import CHUNK_BYTES
from paratrain.topology.planning.growth import edge_seconds_of, in_order_of_readiness, top_down
from paratrain.topology.tree import Tree


class Scorer:
    """Scores trees over the members of a fabric by the predicted seconds of a reduction of `byte_count` bytes.

    It is the closed form L(bytes / k) + (k - 1) S(bytes / k) with the best k, where `cost.TreeClock` follows the chunks
    from member to member; for whole buffers (k = 1) both are the same.
    """

    def __init__(self, fabric: Fabric, byte_count: int) -> None:
        size = fabric.size
        self.size = size
        self.byte_count = byte_count
        self.most_chunks = max(1, math.ceil(byte_count / CHUNK_BYTES))
        places = range(size)
        self.latency = [[0.0 if a == b else fabric.figure(a, b).latency_s for b in places] for a in places]
        self.per_byte = [[0.0 if a == b else 1 / fabric.figure(a, b).bytes_per_s for b in places] for a in places]
        self.seconds = [
            [alpha + byte_count * beta for alpha, beta in zip(alphas, betas, strict=True)]
            for alphas, betas in zip(self.latency, self.per_byte, strict=True)
        ]
        self.far = [[a != b and fabric.crosses_sockets(a, b) for b in places] for a in places]
        number: dict[str, int] = {}
        self.common = [
            [
                tuple(number.setdefault(name, len(number)) for name in fabric.common(a, b)) if a != b else ()
                for b in places
            ]
            for a in places
        ]
        self.segment_per_byte = [1 / fabric.capacity(name) for name in number]
        self.depth_limit = (size - 1).bit_length() + 1
        self.evaluations = 0

    @property
    def least_s(self) -> float:
        """No reduction of whole buffers is faster: ceil(log2 size) transfers over the fastest link."""
        fastest = min((s for a, row in enumerate(self.seconds) for b, s in enumerate(row) if a != b), default=0.0)
        return (self.size - 1).bit_length() * fastest

    @property
    def seconds_apart(self) -> list[list[float]] | None:
        """The seconds of each pair, those that share segments with others made longer; None if no pair shares any."""
        if not self.segment_per_byte:
            return None
        return [
            [time * (1 + 0.5 * len(names)) for time, names in zip(times, row, strict=True)]
            for times, row in zip(self.seconds, self.common, strict=True)
        ]

    def crossings(self, parent: Sequence[int | None]) -> int:
        """How many edges leave a socket."""
        return sum(above is not None and self.far[member][above] for member, above in enumerate(parent))

    def depth(self, parent: Sequence[int | None]) -> int:
        """The count of edges between the root and the member farthest from it."""
        most = 0
        for member in range(self.size):
            level, above = 0, parent[member]
            while above is not None:
                level, above = level + 1, parent[above]
            most = max(most, level)
        return most

    def key(self, parent: Sequence[int | None]) -> tuple[float, int, int, int]:
        """What trees are compared by: the seconds; among equals whether the depth limit holds, crossings, depth."""
        return self.key_of(parent, self.score(parent))

    def key_of(self, parent: Sequence[int | None], seconds: float) -> tuple[float, int, int, int]:
        """`key` of a tree that takes these seconds."""
        depth = self.depth(parent)
        seconds = float(f"{seconds:.9e}")
        return seconds, max(0, depth - self.depth_limit), self.crossings(parent), depth

    def score(self, parent: Sequence[int | None]) -> float:
        """The predicted seconds of the tree of these parents, each adding its children in the order of readiness."""
        return self._walk(parent)[0]

    def trees(self, parent: Sequence[int | None]) -> list[Tree]:
        """The tree of these parents with its children in the order in which they are ready.

        There are two where sharing changes that order; which is the faster is for `cost.TreeClock` to say.
        """
        alone = in_order_of_readiness(parent, edge_seconds_of(parent, self.seconds))
        children = tuple(map(tuple, self._walk(parent)[1]))
        return [alone] if children == alone.children else [alone, Tree(alone.root, alone.parent, children)]

    def critical(self, parent: Sequence[int | None]) -> list[int]:
        """The members, from the root down, whose edges decide when a whole buffer has reached the root."""
        _, children, ready = self._walk(parent)
        path = []
        member = parent.index(None)
        while children[member]:
            below = children[member]
            time, first = 0.0, below[0]
            for child in below:
                if ready[child] >= time:
                    first = child
                time = max(time, ready[child]) + self.seconds[member][child]
            path += below[below.index(first) :]
            member = first
        return path

    def _walk(self, parent: Sequence[int | None]) -> tuple[float, list[list[int]], list[float]]:
        """The seconds, each member's children in the order of readiness, and when each member is ready."""
        self.evaluations += 1
        size, seconds, latency = self.size, self.seconds, self.latency
        children, order = top_down(parent)
        root = order[0]
        loads = self._loads(parent) if self.segment_per_byte else {}
        extra = self._crowding(parent, children, order) if loads and max(loads.values()) > 1 else None
        ready = [0.0] * size  # of the whole buffer
        begun = [0.0] * size  # of a chunk of no bytes
        busiest = busiest_latency = 0.0
        for member in reversed(order):
            below = children[member]
            if not below:
                continue
            if len(below) > 1:
                below.sort(key=lambda child: (ready[child], child))
            row, alphas = seconds[member], latency[member]
            time = start = busy = waits = 0.0
            for child in below:
                cost = row[child]
                busy += cost
                waits += alphas[child]
                if extra is not None:
                    cost += extra[child]
                if ready[child] > time:
                    time = ready[child]
                time += cost
                start = max(start, begun[child]) + alphas[child]
            ready[member], begun[member] = time, start
            if busy > busiest:
                busiest = busy
            if waits > busiest_latency:
                busiest_latency = waits
        whole = ready[root]
        if self.most_chunks == 1:
            return whole, children, ready
        for segment, count in loads.items():
            busiest = max(busiest, count * self.segment_per_byte[segment] * self.byte_count)
        fixed, moved = begun[root], whole - begun[root]  # L = fixed + moved / k
        interval = max(busiest - busiest_latency, 0.0)  # S = busiest_latency + interval / k
        wanted = math.sqrt(max(moved - interval, 0.0) / busiest_latency) if busiest_latency > 0 else math.inf
        count = max(1, min(self.most_chunks, round(min(wanted, self.most_chunks))))
        cut = fixed + moved / count + (count - 1) * (busiest_latency + interval / count)
        return min(whole, cut), children, ready

    def _crowding(self, parent: Sequence[int | None], children: list[list[int]], order: list[int]) -> list[float]:
        """For the edge above each member the further seconds that other edges of the same step cost it.

        The steps are those of `cost.edge_steps`, with the children in the order in which they were ready alone.
        """
        size, common, seconds = self.size, self.common, self.seconds
        step, ready, step_of = [0] * size, [0.0] * size, [0] * size
        for member in reversed(order):
            below = children[member]
            if len(below) > 1:
                below.sort(key=lambda child: (ready[child], child))
            time, at, row = 0.0, 0, seconds[member]
            for child in below:
                time = max(time, ready[child]) + row[child]
                at = max(at, step[child]) + 1
                step_of[child] = at
            ready[member], step[member] = time, at
        flows: dict[tuple[int, int], int] = {}
        sharing = [
            (m, above, common[m][above]) for m, above in enumerate(parent) if above is not None and common[m][above]
        ]
        for member, _, names in sharing:
            for segment in names:
                flows[step_of[member], segment] = flows.get((step_of[member], segment), 0) + 1
        extra = [0.0] * size
        for member, above, names in sharing:
            alone = self.per_byte[member][above]
            crowd = max([flows[step_of[member], segment] * self.segment_per_byte[segment] for segment in names])
            if crowd > alone:
                extra[member] = (crowd - alone) * self.byte_count
        return extra

    def _loads(self, parent: Sequence[int | None]) -> dict[int, int]:
        """How many edges of the tree load each shared segment."""
        loads: dict[int, int] = {}
        for names, above in zip(self.common, parent, strict=True):
            if above is not None:
                for segment in names[above]:
                    loads[segment] = loads.get(segment, 0) + 1
        return loads

"""Machines for tests: from rows of words, all alike, random, and renumbered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from paratrain.topology.machine import Gpu, Link, LinkClass, Machine

WORDS = ["NV1", "NV2", "NV4", "PIX", "PXB", "PHB", "NODE", "SYS", "?"]


def machine_of(rows: Sequence[str], nvswitch: bool = False, **gpu: object) -> Machine:
    cells = [row.split() for row in rows]
    size = len(cells)
    gpus = tuple(Gpu(index, **gpu) for index in range(size))  # type: ignore[arg-type]
    links = [Link(a, b, LinkClass.parse(cells[a][b])) for a in range(size) for b in range(a + 1, size)]
    return Machine(gpus, tuple(links), nvswitch=nvswitch)


def uniform(size: int, word: str, nvswitch: bool = False, **gpu: object) -> Machine:
    rows = [" ".join("X" if a == b else word for b in range(size)) for a in range(size)]
    return machine_of(rows, nvswitch, **gpu)


def renumbered(machine: Machine, number: Sequence[int]) -> Machine:
    """The machine in which the GPU with index i is called number[i], and all are listed by their new indices."""
    gpus = sorted((replace(gpu, index=number[gpu.index]) for gpu in machine.gpus), key=lambda gpu: gpu.index)
    links = []
    for link in machine.links:
        low, high = sorted((number[link.a], number[link.b]))
        links.append(replace(link, a=low, b=high))
    return replace(machine, gpus=tuple(gpus), links=tuple(sorted(links, key=lambda link: (link.a, link.b))))


@st.composite
def random_machines(draw: st.DrawFn, most: int, bus_ids: bool = True) -> Machine:
    """Any words between any pairs, a few kinds of them at a time; sometimes in blocks, as on real machines."""
    size = draw(st.integers(1, most))
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5, unique=True))
    random = draw(st.randoms(use_true_random=False))
    block = [random.randrange(4) for _ in range(size)]
    by_block = {(a, b): random.choice(words) for a in range(4) for b in range(a, 4)}
    in_blocks = draw(st.booleans())
    numa_count = draw(st.sampled_from([0, 1, 2, 4]))
    numbers = random.sample(range(256), size)
    gpus = tuple(
        Gpu(
            index,
            bus_id=f"00000000:{numbers[index]:02x}:00.0" if bus_ids else "",
            numa_node=random.randrange(numa_count) if numa_count else None,
        )
        for index in range(size)
    )

    def word(a: int, b: int) -> str:
        low, high = sorted((block[a], block[b]))
        return by_block[low, high] if in_blocks else random.choice(words)

    links = tuple(Link(a, b, LinkClass.parse(word(a, b))) for a in range(size) for b in range(a + 1, size))
    return Machine(gpus, links, nvswitch=draw(st.booleans()))

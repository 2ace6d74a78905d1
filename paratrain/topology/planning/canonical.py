"""An order of a machine's members that does not depend on how they are numbered.

The planner breaks ties by this order, so that a machine gets the same tree when its GPUs are numbered otherwise. Bus ids
give it at once. Without them (in saved text) it comes from the links: members are put into classes by what they are,
classes are split by how their members are linked to each other class until nothing splits any more (colour refinement,
Weisfeiler and Leman 1968), and while a class holds several members the one with the lowest number is singled out.
Members that refinement cannot tell apart are alike on every machine of flesh and blood, so that it does not matter which
of them is singled out.
"""

from __future__ import annotations

from typing import Any

from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.machine import Gpu


def canonical_places(fabric: MachineFabric, root: int | None = None) -> list[int]:
    """The places in the members of a machine, in an order that follows them when they are renumbered.

    `root` is a place that is set apart from all others, if the caller does so.
    """
    machine = fabric.machine
    members = machine.members
    bus_ids = [member.bus_id for member in members]
    if all(bus_ids) and len(set(bus_ids)) == len(bus_ids):
        return sorted(range(len(members)), key=lambda place: bus_ids[place])
    if not machine.gpus:
        return sorted(range(len(members)), key=lambda place: members[place].index)
    pairs = _pair_colours(fabric)
    colours = _ranked([(place != root, _kind(gpu)) for place, gpu in enumerate(machine.gpus)])
    while True:
        colours = _refined(colours, pairs)
        count = len(set(colours))
        if count == len(colours):
            return sorted(range(len(members)), key=lambda place: colours[place])
        tied = min(colour for colour in colours if colours.count(colour) > 1)
        chosen = min((place for place in range(len(colours)) if colours[place] == tied), key=lambda p: members[p].index)
        colours = [2 * colour + (place != chosen) for place, colour in enumerate(colours)]


def _kind(gpu: Gpu) -> tuple[Any, ...]:
    return (gpu.name, gpu.compute_capability, gpu.pcie_generation or 0, gpu.pcie_width or 0, bool(gpu.mig))


def _pair_colours(fabric: MachineFabric) -> list[list[int]]:
    """For each pair a number that says how the two are linked; the faster, the lower."""
    places = range(fabric.size)
    machine = fabric.machine
    index = machine.indices

    def words(one: int, other: int) -> tuple[Any, ...]:
        if one == other:
            return (0.0, 0.0, "", False, False, False)
        figure = fabric.figure(one, other)
        same_island = fabric.islands[one] == fabric.islands[other]
        same_socket = fabric.sockets[one] == fabric.sockets[other]
        word = machine.link_class(index[one], index[other]).word
        return (1 / figure.bytes_per_s, figure.latency_s, word, figure.staged, not same_island, not same_socket)

    found = [[words(one, other) for other in places] for one in places]
    number = {colour: rank for rank, colour in enumerate(sorted({colour for row in found for colour in row}))}
    return [[number[colour] for colour in row] for row in found]


def _ranked(keys: list[Any]) -> list[int]:
    number = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return [number[key] for key in keys]


def _refined(colours: list[int], pairs: list[list[int]]) -> list[int]:
    """The coarsest finer colouring in which members of one colour see the same colours over the same links."""
    colours = _ranked(colours)
    places = range(len(colours))
    while True:
        keys = [
            (colours[one], sorted((pairs[one][other], colours[other]) for other in places if other != one))
            for one in places
        ]
        finer = _ranked([(colour, tuple(seen)) for colour, seen in keys])
        if len(set(finer)) == len(set(colours)):
            return finer
        colours = finer

"""A machine as plain values for JSON, and back: what `--save` writes of it and `--from` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from paratrain.topology.files.saved_values import SCHEMA, Fields, saved_values
from paratrain.topology.link_figures import LinkFigure, figure_of_pair
from paratrain.topology.machine import SELF, SHARED, CpuRank, Gpu, Link, LinkClass, Machine, MachineWarning, Member

__all__ = ["SCHEMA", "machine_values", "read_saved_machine"]

_NAMES = {"numa_node": "numa", "cpu_affinity": "cpus"}  # where JSON calls a field otherwise
_ALWAYS = frozenset(
    (
        "index",
        "nvml_index",
        "bus_id",
        "uuid",
        "name",
        "memory_bytes",
        "compute_capability",
        "numa_node",
        "cpu_affinity",
        "mig",
    )
)
_PASSING = ("memory_free_bytes",)  # true only while it was read

_OF_THE_TREE = ("T10",)  # warnings that a new plan gives again where they still apply
_SAVED = ", saved in "

Pair = tuple[int, int]


def machine_values(machine: Machine, verdicts: Mapping[Pair, str] | None = None) -> dict[str, Any]:
    """The machine as JSON values. `verdicts` says what tests of links have found, by pair of indices.

    GPUs are named by their indices throughout. `gbps` is 10^9 bytes a second in one direction.
    """
    network = machine.network
    return {
        "source": machine.source,
        "no_gpu_reason": machine.no_gpu_reason or None,
        "gpus": [_gpu_values(gpu) for gpu in machine.gpus],
        "cpu_ranks": [
            {"index": rank.index, "numa": rank.numa_node, "cores": rank.cores or None} for rank in machine.cpu_ranks
        ],
        "switch": machine.nvswitch,
        "links": [
            _link_values(machine, a, b, verdicts or {})
            for one, a in enumerate(machine.members)
            for b in machine.members[one + 1 :]
            if machine.gpus or tuple(sorted((a.index, b.index))) in machine.measured
        ],
        "network": None if network is None else {**_figure_values(network), "cards": machine.network_cards},
        "warnings": [
            {"code": warning.code, "pair": list(warning.pair) if warning.pair else None, "message": warning.message}
            for warning in machine.warnings
        ],
    }


def read_saved_machine(content: bytes, source: str) -> Machine:
    """The machine that `machine_values` has made these of. TopologyError where the file `source` holds something else.

    What was measured or tested then is kept, and said to come from the file.
    """
    top = Fields(saved_values(content, source), source, "")
    gpus = tuple(_gpu(gpu) for gpu in top.objects("gpus"))
    links, measured, vetoes = [], {}, {}
    for item in top.objects("links"):
        link = _link(item)
        if link.link_class != SHARED:  # which is what ranks on CPU cores have anyway
            links.append(link)
        figure = _measured(item)
        if figure is not None:
            measured[link.a, link.b] = figure
        if item.text("veto"):
            vetoes[link.a, link.b] = item.text("veto")
    ranks = top.objects("cpu_ranks") if top.get("cpu_ranks") is not None else []
    versions = top.object("versions") if top.get("versions") is not None else Fields({}, source, "versions")
    network = top.object("network") if top.get("network") is not None else None
    machine = Machine(
        gpus,
        tuple(links),
        source=source,
        warnings=tuple(one for one in map(_warning, top.objects("warnings")) if one.code not in _OF_THE_TREE),
        nvswitch=bool(top.flag_or_none("switch")),
        no_gpu_reason=top.text("no_gpu_reason"),
        driver_version=versions.text("driver"),
        cuda_version=versions.text("cuda"),
        cpu_ranks=tuple(CpuRank(rank.whole("index"), rank.whole_or_none("numa"), rank.text("cores")) for rank in ranks),
        measured=measured,
        vetoes=vetoes,
        network=None if network is None else _figure(network),
        network_cards=1 if network is None else network.whole("cards", least=1),
    )
    origin = top.text("source").partition(_SAVED)[0] or "unknown"
    return replace(machine, source=f"{origin}{_SAVED}{source}")


def read_verdicts(content: bytes, source: str) -> dict[Pair, str]:
    """What tests of links had found when the file was written, by pair of indices."""
    links = Fields(saved_values(content, source), source, "").objects("links")
    tested = [link for link in links if link.text("verified")]
    return {
        (min(link.whole("a"), link.whole("b")), max(link.whole("a"), link.whole("b"))): link.text("verified")
        for link in tested
    }


def _gpu_values(gpu: Gpu) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in fields(Gpu):
        value = getattr(gpu, item.name)
        is_known = value is not None and value not in ("", ())
        if item.name not in _PASSING and (is_known or item.name in _ALWAYS):
            found = list(value) if isinstance(value, tuple) else value
            values[_NAMES.get(item.name, item.name)] = found if is_known else None
    return values


def _gpu(item: Fields) -> Gpu:
    values: dict[str, Any] = {}
    for field in fields(Gpu):
        name, kind = _NAMES.get(field.name, field.name), str(field.type)
        if field.name == "index":
            values[field.name] = item.whole(name)
        elif kind.startswith("int"):
            values[field.name] = item.whole_or_none(name)
        elif kind.startswith("bool"):
            values[field.name] = item.flag_or_none(name)
        elif kind.startswith("tuple"):
            found = item.get(name) or []
            if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
                raise item.error(name, "a list of texts", found)
            values[field.name] = tuple(found)
        else:
            values[field.name] = item.text(name)
    return Gpu(**values)


def _link_values(machine: Machine, a: Member, b: Member, verdicts: Mapping[Pair, str]) -> dict[str, Any]:
    low, high = sorted((a.index, b.index))
    link = machine.link(low, high)
    figure = figure_of_pair(machine, a, b)
    return {
        "a": low,
        "b": high,
        "class": link.link_class.word,
        "nvlinks": link.link_class.nvlink_count,
        "p2p_read": link.p2p_read or None,
        "p2p_write": link.p2p_write or None,
        "verified": verdicts.get((low, high)),
        "veto": machine.vetoes.get((low, high)),
        **_figure_values(figure),
    }


def _figure_values(figure: LinkFigure) -> dict[str, Any]:
    return {
        "staged": figure.staged,
        "gbps": round(figure.bytes_per_s / 1e9, 9),
        "latency_us": round(figure.latency_s * 1e6, 6),
        "source": figure.origin,
    }


def _link(item: Fields) -> Link:
    a, b = item.whole("a"), item.whole("b")
    link_class = SHARED if item.text("class") == SHARED.word else item.parsed("class", LinkClass.parse)
    if a == b or link_class == SELF:
        raise item.error("", "a link between two GPUs", [a, b, link_class.word])
    return Link(min(a, b), max(a, b), link_class, item.text("p2p_read"), item.text("p2p_write"))


def _measured(item: Fields) -> LinkFigure | None:
    """The figure of a link, if it is more than the default, which the catalogue knows."""
    return None if item.text("source") in ("", "default") else _figure(item)


def _figure(item: Fields) -> LinkFigure:
    gbps, latency_us = item.number_or_none("gbps"), item.number_or_none("latency_us")
    if gbps is None or not 1e-9 <= gbps <= 1e9:
        raise item.error("gbps", "a number from 1e-9 to 1e9", gbps)
    origin = "file" if item.text("source") != "default" else "default"
    return LinkFigure(float(round(gbps * 1e9)), (latency_us or 0.0) / 1e6, bool(item.flag_or_none("staged")), origin)


def _warning(item: Fields) -> MachineWarning:
    pair = item.get("pair")
    if pair == []:
        pair = None
    if pair is not None and not (isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair)):
        raise item.error("pair", "null or a list of two indices", pair)
    return MachineWarning(item.text("code"), item.text("message"), None if pair is None else (pair[0], pair[1]))

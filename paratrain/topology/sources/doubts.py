"""What is doubtful about a machine, whoever described it: the warnings that follow from its GPUs and links alone."""

from __future__ import annotations

from collections.abc import Iterator

from paratrain.topology.machine import Gpu, Link, LinkKind, Machine, MachineWarning

_NVLINK_MODELS = ("SXM", "HBM3", "H20", "B200", "B300")  # parts of the names of GPUs that are sold with NVLinks only
_NEAR = (LinkKind.PIX, LinkKind.PXB)
_FAR = (LinkKind.SYS, LinkKind.UNKNOWN)
_MOST_NAMED = 8


def doubts(machine: Machine) -> list[MachineWarning]:
    """The warnings T02, T07, T08, T09, T11, T14, T15 and T16 that apply to this machine, in the order of their codes."""
    return [
        *_refused_copies(machine.links),
        *_missing_nvlinks(machine),
        *_mixed_models(machine.gpus),
        *_lone_gpu(machine),
        *_mig(machine.gpus),
        *_unknown_links(machine.links),
        *_displays(machine.gpus),
        *_slow_slots(machine.gpus),
    ]


def _refused_copies(links: tuple[Link, ...]) -> Iterator[MachineWarning]:
    for link in links:
        refusal = next((word for word in (link.p2p_read, link.p2p_write) if word not in ("", "OK", "U")), "")
        if link.link_class.kind in _NEAR and refusal:
            message = f"GPU{link.a} and GPU{link.b} are near ({link.link_class}) but the driver allows no direct copies"
            yield MachineWarning("T02", f"{message} ({refusal})", (link.a, link.b))


def _missing_nvlinks(machine: Machine) -> Iterator[MachineWarning]:
    gpus = machine.gpus
    has_nvlinks = machine.nvswitch or any(link.link_class.kind is LinkKind.NVLINK for link in machine.links)
    starting = [gpu for gpu in gpus if gpu.fabric in ("not started", "in progress")]
    if starting:
        message = (
            f"the NVSwitch fabric of {_names(starting)} is {starting[0].fabric}; until it is completed CUDA cannot use "
            "them: is nvidia-fabricmanager running?"
        )
        yield MachineWarning("T07", message)
    elif len([gpu for gpu in gpus if any(word in gpu.name for word in _NVLINK_MODELS)]) > 1 and not has_nvlinks:
        message = "these GPUs should have NVLinks, but none is up; is the fabric manager running?"
        yield MachineWarning("T07", message)


def _mixed_models(gpus: tuple[Gpu, ...]) -> Iterator[MachineWarning]:
    names = sorted({gpu.name for gpu in gpus if gpu.name})
    if len(names) > 1:
        message = f"the GPUs are of different models ({', '.join(names)}); the slowest sets the pace"
        yield MachineWarning("T08", message)


def _lone_gpu(machine: Machine) -> Iterator[MachineWarning]:
    """The one GPU that reaches all others over SYS only, while each of these has a nearer one."""
    if len(machine.gpus) < 3:
        return
    lone = [
        gpu
        for gpu in machine.gpus
        if all(machine.link_class(gpu.index, other).kind in _FAR for other in machine.indices if other != gpu.index)
    ]
    if len(lone) == 1:
        message = f"GPU{lone[0].index} is far (SYS) from every other GPU; leaving it out may be faster"
        yield MachineWarning("T09", message)


def _mig(gpus: tuple[Gpu, ...]) -> Iterator[MachineWarning]:
    sliced = [gpu for gpu in gpus if gpu.mig]
    if sliced:
        message = f"MIG is on for {_names(sliced)}: its instances cannot copy to each other directly"
        yield MachineWarning("T11", message)


def _unknown_links(links: tuple[Link, ...]) -> Iterator[MachineWarning]:
    unknown = [f"{link.a}-{link.b}" for link in links if link.link_class.kind is LinkKind.UNKNOWN]
    if unknown:
        pairs = ", ".join(unknown[:_MOST_NAMED])
        pairs += f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        yield MachineWarning(
            "T14", f"nobody says how these pairs are linked: {pairs}; they are planned through the host's memory"
        )


def _displays(gpus: tuple[Gpu, ...]) -> Iterator[MachineWarning]:
    shown = [gpu for gpu in gpus if gpu.display_active]
    if shown and len(gpus) > 1:
        message = f"{_names(shown)} drives a display, which takes memory and time, and with some drivers spoils copies"
        yield MachineWarning("T15", message)


def _slow_slots(gpus: tuple[Gpu, ...]) -> Iterator[MachineWarning]:
    """T16: fewer lanes than GPU and slot have, or, on a GPU at full speed, a lower generation."""
    for gpu in gpus:
        if gpu.pcie_width and gpu.pcie_width_now and gpu.pcie_width_now < gpu.pcie_width:
            found, best = f"x{gpu.pcie_width_now}", f"x{gpu.pcie_width}"
        elif (
            gpu.performance_state == 0
            and gpu.pcie_generation
            and gpu.pcie_generation_now
            and gpu.pcie_generation_now < gpu.pcie_generation
        ):
            found, best = f"generation {gpu.pcie_generation_now}", f"generation {gpu.pcie_generation}"
        else:
            continue
        message = f"the PCIe link of GPU{gpu.index} runs at {found}, but GPU and slot can do {best}; is it seated well?"
        yield MachineWarning("T16", message)


def _names(gpus: list[Gpu]) -> str:
    return ", ".join(f"GPU{gpu.index}" for gpu in gpus[:_MOST_NAMED]) + (" ..." if len(gpus) > _MOST_NAMED else "")

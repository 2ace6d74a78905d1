"""Which of a machine's GPUs CUDA programs may see, and under which numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from paratrain.topology.machine import Gpu, Link, Machine, MachineWarning


def visible_machine(
    machine: Machine, environment: Mapping[str, str], cuda_bus_ids: Sequence[str] | None = None
) -> Machine:
    """The machine with the GPUs that CUDA shows, numbered from 0 as CUDA numbers them.

    The driver and nvidia-smi ignore CUDA_VISIBLE_DEVICES and number the GPUs by their place on the PCI bus; CUDA does
    neither. `cuda_bus_ids` are the PCI bus ids of CUDA's GPUs in CUDA's order; the GPUs are matched by them. Where
    CUDA could not be asked (None), or the bus ids do not match, the environment variables say it as well as they can
    (see `_by_environment`). Whatever number differs from the driver's is named in a warning (T01).
    """
    if not machine.gpus:
        return machine
    if cuda_bus_ids is not None:
        if not cuda_bus_ids:
            return _nothing_left(machine, environment)
        numbers = {gpu.bus_id: gpu.index for gpu in machine.gpus if gpu.bus_id}
        if all(bus_id in numbers for bus_id in cuda_bus_ids):
            return _by_cuda(machine, environment, [numbers[bus_id] for bus_id in dict.fromkeys(cuda_bus_ids)])
        message = (
            "the PCI bus ids that CUDA gives are not those of the driver; the GPUs are numbered by the environment "
            "variables, which may be wrong"
        )
        machine = machine.with_warnings(MachineWarning("T01", message))
    return _by_environment(machine, environment)


def _by_cuda(machine: Machine, environment: Mapping[str, str], order: list[int]) -> Machine:
    """The GPUs with these indices, in CUDA's order. T01 where that is not the driver's."""
    if order == list(machine.indices):
        return machine
    if sorted(order) == sorted(machine.indices):
        pairs = ", ".join(f"GPU{place} is {index} there" for place, index in enumerate(order) if place != index)
        message = f"CUDA numbers the GPUs otherwise than nvidia-smi ({pairs}); paratrain uses CUDA's numbers"
    else:
        message = f"CUDA shows {len(order)} of {len(machine.gpus)} GPUs; paratrain uses CUDA's numbers"
    value = environment.get("CUDA_VISIBLE_DEVICES")
    message += "" if value is None else f" (CUDA_VISIBLE_DEVICES='{value}' is set)"
    return _renumbered(machine, order).with_warnings(MachineWarning("T01", message))


def _by_environment(machine: Machine, environment: Mapping[str, str]) -> Machine:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, numbered by it.

    CUDA programs see only the GPUs it lists, in its order, up to the first entry that names none. Entries are numbers
    or the beginnings of UUIDs; numbers count in CUDA's own order, which is that of the PCI bus if CUDA_DEVICE_ORDER is
    PCI_BUS_ID and, for GPUs of one model, in practice always. Where the models differ and the order is not set, a
    warning (T01) says that the numbers may be others. Entries for MIG instances leave the whole GPUs as they are.
    """
    warnings: list[MachineWarning] = []
    mixed = len({gpu.name for gpu in machine.gpus}) > 1
    if mixed and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        message = (
            "CUDA may number GPUs of different models in another order than here; "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID to be sure"
        )
        warnings.append(MachineWarning("T01", message))
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return machine.with_warnings(*warnings)
    entries = [entry.strip() for entry in value.split(",")]
    if any(entry.startswith("MIG-") for entry in entries):
        message = "CUDA_VISIBLE_DEVICES names MIG instances; the whole GPUs are shown"
        return machine.with_warnings(*warnings, MachineWarning("T11", message))
    in_order = sorted(machine.gpus, key=lambda gpu: (gpu.bus_id, gpu.index))
    chosen: list[Gpu] = []
    for entry in entries:
        gpu = _named(entry, in_order)
        if gpu is None or gpu in chosen:
            break
        chosen.append(gpu)
    if not chosen:
        return _nothing_left(machine, environment)
    if [gpu.index for gpu in chosen] != list(machine.indices):
        message = (
            f"CUDA_VISIBLE_DEVICES='{value}' is set: "
            f"shown are {len(chosen)} of {len(machine.gpus)} GPUs, numbered as CUDA sees them"
        )
        warnings.append(MachineWarning("T01", message))
    return _renumbered(machine, [gpu.index for gpu in chosen]).with_warnings(*warnings)


def _nothing_left(machine: Machine, environment: Mapping[str, str]) -> Machine:
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        reason = f"the driver lists {len(machine.gpus)} GPUs, but CUDA shows none of them"
    else:
        reason = f"CUDA_VISIBLE_DEVICES='{value}' hides every GPU of this machine"
    return replace(machine, gpus=(), links=(), warnings=(), no_gpu_reason=reason)


def _named(entry: str, gpus: list[Gpu]) -> Gpu | None:
    """The GPU that an entry names; None if it names none or several."""
    if entry.isascii() and entry.isdecimal():
        return gpus[int(entry)] if int(entry) < len(gpus) else None
    matches = [gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _renumbered(machine: Machine, order: list[int]) -> Machine:
    """The GPUs with these indices, renumbered from 0 in this order; warnings about other pairs no longer apply."""
    number = {index: place for place, index in enumerate(order)}
    gpus = {gpu.index: gpu for gpu in machine.gpus}
    links: list[Link] = []
    for link in machine.links:
        if link.a in number and link.b in number:
            low, high = sorted((number[link.a], number[link.b]))
            links.append(replace(link, a=low, b=high))
    return replace(
        machine,
        gpus=tuple(replace(gpus[index], index=place) for place, index in enumerate(order)),
        links=tuple(sorted(links, key=lambda link: (link.a, link.b))),
        warnings=tuple(warning for warning in machine.warnings if warning.pair is None),
    )

"""Find out what machine this is: from NVML, else from nvidia-smi, else from Linux's PCI tree, else an honest guess."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paratrain.topology.machine import Gpu, Link, Machine, MachineWarning
from paratrain.topology.sources import cuda, nvidia_smi, nvml, sysfs
from paratrain.topology.sources.doubts import doubts
from paratrain.topology.sources.iommu import iommu_warnings
from paratrain.topology.sources.nvidia_smi import NvidiaSmiError
from paratrain.topology.sources.visibility import visible_machine

GUESS = "a guess"


def find_machine(
    environment: Mapping[str, str] | None = None,
    library: Any = None,
    root: Path = Path("/"),
    ask_cuda: cuda.AskCuda = cuda.visible_bus_ids,
    run: nvidia_smi.Run = nvidia_smi.run,
) -> Machine:
    """This machine, with the GPUs that CUDA programs may see, numbered as CUDA does, and everything doubtful about it.

    Never raises: each source that fails gives way to the next one with a warning (T14), and a machine without GPUs says
    why. Only reads. The arguments stand in for ``os.environ``, the module pynvml, the root of the file system, CUDA
    and the program nvidia-smi.
    """
    environment = os.environ if environment is None else environment
    found = nvml.ask_driver(library, root)
    seen = ask_cuda() if isinstance(found, str) or found.gpus else None
    machine = visible_machine(
        _without_nvml(found, root, seen, run) if isinstance(found, str) else found, environment, seen
    )
    if not machine.gpus:
        return machine
    return machine.with_warnings(*doubts(machine), *iommu_warnings(machine, root))


def _without_nvml(reason: str, root: Path, seen: Sequence[str] | None, run: nvidia_smi.Run) -> Machine:
    """The machine as the other sources describe it; `reason` says why NVML did not, `seen` are CUDA's bus ids."""
    failures = [reason]
    by_linux = sysfs.read_machine(root)
    gpus: tuple[Gpu, ...] = ()
    try:
        gpus = sysfs.with_places(tuple(nvidia_smi.read_gpus(run)), root)
    except NvidiaSmiError as error:
        failures.append(str(error))
    if not gpus:
        gpus = by_linux.gpus
    if not gpus and seen:
        bare = (Gpu(index, bus_id=bus_id, nvml_index=index) for index, bus_id in enumerate(sorted(seen)))
        gpus = sysfs.with_places(tuple(bare), root)
    if not gpus:
        return Machine(source=nvml.SOURCE, no_gpu_reason="; ".join(filter(None, (reason, by_linux.no_gpu_reason))))
    links, source, nvswitch, repairs = _links(gpus, run, failures)
    warning = MachineWarning("T14", f"{'; '.join(failures)}; the links are from {source}")
    return Machine(gpus, links, source, (warning, *repairs), nvswitch, driver_version=by_linux.driver_version)


def _links(
    gpus: tuple[Gpu, ...], run: nvidia_smi.Run, failures: list[str]
) -> tuple[tuple[Link, ...], str, bool, tuple[MachineWarning, ...]]:
    """The links of these GPUs, their source, whether there is an NVSwitch, and the warnings of that source."""
    try:
        matrix = nvidia_smi.read_links(run)
    except NvidiaSmiError as error:
        if str(error) not in failures:
            failures.append(str(error))
    else:
        if sorted(matrix.indices) == sorted(gpu.index for gpu in gpus):
            return matrix.links, nvidia_smi.SOURCE, matrix.nvswitch, matrix.warnings
        failures.append(f"{nvidia_smi.SOURCE} shows {len(matrix.gpus)} GPUs, expected {len(gpus)}")
    links = sysfs.links_of(gpus)
    known = any(gpu.pci_path for gpu in gpus)
    return links, sysfs.SOURCE if known else GUESS, False, ()

"""Ask the NVIDIA driver through NVML. The only module that imports pynvml (the package nvidia-ml-py)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paratrain.topology.link_figures import nvlinks_per_gpu
from paratrain.topology.machine import Link, LinkKind, Machine, MachineWarning, has_nvswitch
from paratrain.topology.sources import cuda
from paratrain.topology.sources.nvml_gpu import read_gpu
from paratrain.topology.sources.nvml_link import doubtful_ports, read_link, read_ports
from paratrain.topology.sources.nvml_questions import Driver, as_text
from paratrain.topology.sources.pci import PciTree, path_class
from paratrain.topology.sources.visibility import visible_machine

SOURCE = "NVML"


def read_machine(
    library: Any = None,
    environment: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    ask_cuda: cuda.AskCuda | None = None,
) -> Machine:
    """The machine that the driver describes, with the GPUs that CUDA programs may see, numbered as CUDA does.

    Never raises for what a driver may lack: with no driver or no GPU the machine is empty and says why, and a question
    the driver does not support leaves its answer open. `library` stands in for the module pynvml, `environment` for
    ``os.environ``, `root` for the root of the file system, `ask_cuda` for `cuda.visible_bus_ids` (with a `library` of
    the caller's, CUDA itself is not asked).
    """
    if library is None and ask_cuda is None:
        ask_cuda = cuda.visible_bus_ids
    machine = ask_driver(library, root)
    if isinstance(machine, str):
        return Machine(source=SOURCE, no_gpu_reason=machine)
    seen = ask_cuda() if ask_cuda is not None and machine.gpus else None
    return visible_machine(machine, os.environ if environment is None else environment, seen)


def ask_driver(library: Any = None, root: Path = Path("/")) -> Machine | str:
    """All GPUs of the driver under its own numbers; or, where the driver cannot be asked, the reason in words."""
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except Exception:  # not installed, or another package of that name that fails in its own way
            return "pynvml is not installed (pip install nvidia-ml-py)"
    try:
        library.nvmlInit()
    except Exception as error:
        return _words(error)
    driver = Driver(library)
    try:
        return _machine(driver, PciTree(root))
    finally:
        driver.ask("nvmlShutdown")


def _words(error: Exception) -> str:
    """NVML's reason as one sentence without its end."""
    text = as_text(str(error)).strip().rstrip(".") or type(error).__name__
    if "Shared Library Not Found" in text or "LibraryNotFound" in type(error).__name__:
        return "the NVIDIA driver is not installed (NVML's library was not found)"
    return f"NVML says: {text}"


def _machine(driver: Driver, tree: PciTree) -> Machine | str:
    """All GPUs that the driver opens, under its own numbers, and the links of all their pairs."""
    version = as_text(driver.ask("nvmlSystemGetDriverVersion"))
    cuda_number = driver.number("nvmlSystemGetCudaDriverVersion_v2") or driver.number("nvmlSystemGetCudaDriverVersion")
    cuda_words = f"{cuda_number // 1000}.{cuda_number % 1000 // 10}" if cuda_number else ""
    count = driver.number("nvmlDeviceGetCount")
    if count is None:
        return "the NVIDIA driver does not say how many GPUs there are"
    asked = {index: driver.ask("nvmlDeviceGetHandleByIndex", index) for index in range(count)}
    handles = {index: handle for index, handle in asked.items() if handle is not None}
    lost = [index for index in asked if index not in handles]
    if not handles:
        reason = f"the NVIDIA driver lists {count} GPUs" + (" and opens none of them" if lost else "")
        return Machine(source=SOURCE, no_gpu_reason=reason, driver_version=version, cuda_version=cuda_words)
    gpus = {index: read_gpu(driver, index, handle, tree) for index, handle in handles.items()}
    bus_ids = {gpu.bus_id for gpu in gpus.values() if gpu.bus_id}
    ports = {index: read_ports(driver, handle, bus_ids, tree) for index, handle in handles.items()}
    pairs = [(a, b) for a in handles for b in handles if a < b]
    links = [read_link(driver, gpus[a], gpus[b], (handles[a], handles[b]), (ports[a], ports[b])) for a, b in pairs]
    warnings = [MachineWarning("T14", f"NVML lists GPU{index} but cannot open it; it is left out") for index in lost]
    warnings += doubtful_ports(links, ports)
    filled = [_from_linux(link, gpus[link.a].pci_path, gpus[link.b].pci_path, gpus) for link in links]
    from_linux = [(new.a, new.b) for old, new in zip(links, filled, strict=True) if old != new]
    if from_linux:
        words = pair_list(from_linux)
        message = f"the driver does not say how these pairs are linked: {words}; Linux's PCI tree does, and is used"
        warnings.append(MachineWarning("T14", message))
    counts = {index: [link.link_class.nvlink_count for link in filled if index in (link.a, link.b)] for index in gpus}
    nvswitch = any(port.to_switch for port in ports.values()) or any(
        has_nvswitch([counts[index]], nvlinks_per_gpu(gpu.compute_capability) or 18) for index, gpu in gpus.items()
    )
    return Machine(
        tuple(gpus.values()),
        tuple(filled),
        SOURCE,
        tuple(warnings),
        nvswitch,
        driver_version=version,
        cuda_version=cuda_words,
    )


def _from_linux(link: Link, one: tuple[str, ...], other: tuple[str, ...], gpus: Mapping[int, Any]) -> Link:
    """The same link; where the driver said nothing of its class, with the one of the path in Linux's PCI tree."""
    if link.link_class.kind is not LinkKind.UNKNOWN:
        return link
    numa_nodes = (gpus[link.a].numa_node, gpus[link.b].numa_node)
    return Link(link.a, link.b, path_class(one, other, numa_nodes), link.p2p_read, link.p2p_write)


def pair_list(pairs: list[tuple[int, int]]) -> str:
    """``0-1, 0-2``; of more than 8 pairs the first 8 and how many there are besides."""
    more = f" and {len(pairs) - 8} more" if len(pairs) > 8 else ""
    return ", ".join(f"{a}-{b}" for a, b in pairs[:8]) + more

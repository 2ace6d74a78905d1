"""``paratrain device_query``: what the driver says of each GPU."""

from __future__ import annotations

import argparse

from paratrain.topology.machine import Gpu, Machine
from paratrain.topology.selection import select_gpus
from paratrain.topology.sources.find import find_machine

_EXAMPLES = """\
  paratrain device_query
  paratrain device_query -gpu 0
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = subparsers.add_parser(
        "device_query",
        help="show what the driver says of each GPU",
        description="Show name, memory, compute capability, PCI bus id and more of each NVIDIA GPU, from the driver.",
        epilog=f"examples:\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-gpu", "--gpu", metavar="0,1|all", help="only these GPUs; an error if one is not there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one block of lines for each GPU. DeviceError if a GPU is asked for that is not there."""
    machine = find_machine()
    if arguments.gpu is not None:
        machine = machine.select(select_gpus(arguments.gpu, machine))
    print(describe(machine))
    return 0


def describe(machine: Machine) -> str:
    """The text that the verb prints for a machine."""
    if not machine.gpus:
        return f"no NVIDIA GPU: {machine.no_gpu_reason}"
    blocks = [_describe_gpu(gpu, machine) for gpu in machine.gpus]
    return "\n\n".join(blocks + [f"warning {warning.code}: {warning.message}" for warning in machine.warnings])


def _describe_gpu(gpu: Gpu, machine: Machine) -> str:
    major, _, minor = gpu.compute_capability.partition(".")
    lanes = f", {gpu.pcie_width} lanes" if gpu.pcie_width else ""
    number = "" if gpu.nvml_index in (None, gpu.index) else f" (GPU {gpu.nvml_index} for nvidia-smi)"
    values = {
        "Device id": f"{gpu.index}{number}",
        "Name": gpu.name,
        "Major revision number": major,
        "Minor revision number": minor,
        "Total global memory": _bytes(gpu.memory_bytes),
        "Free global memory": _bytes(gpu.memory_free_bytes),
        "Cores": _number(gpu.core_count),
        "Clock rate": f"{gpu.clock_mhz} MHz at most" if gpu.clock_mhz else "",
        "PCI bus id": gpu.bus_id,
        "PCIe": f"generation {gpu.pcie_generation}{lanes}" if gpu.pcie_generation else "",
        "NUMA node": _number(gpu.numa_node),
        "Near CPU cores": gpu.cpu_affinity,
        "MIG": "" if gpu.mig is None else "on" if gpu.mig else "off",
        "UUID": gpu.uuid,
        "Driver version": machine.driver_version,
        "CUDA version of the driver": machine.cuda_version,
    }
    return "\n".join(f"{name + ':':28s}{value or 'not told by the driver'}" for name, value in values.items())


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _bytes(value: int | None) -> str:
    return "" if value is None else f"{value} bytes ({value / 2**30:.1f} GiB)"

"""The GPUs that a ``-gpu`` option asks for."""

from __future__ import annotations

from paratrain.errors import DeviceError
from paratrain.topology.machine import Machine, gpu_list


def select_gpus(text: str, machine: Machine, option: str = "-gpu") -> list[int]:
    """The indices that "2", "0,1" or "all" asks for, in the order of the text. DeviceError if one is not there.

    DeviceError too for a machine without GPUs, a text that is no list of numbers and a GPU that is named twice.
    """
    wanted = text.strip()
    if not machine.gpus:
        raise DeviceError(f"no NVIDIA GPU: {machine.no_gpu_reason or machine.source}; leave out {option} or use --cpu")
    if wanted.lower() == "all":
        return list(machine.indices)
    chosen: list[int] = []
    for word in wanted.split(","):
        number = word.strip()
        if not (number.isascii() and number.isdecimal()):
            found = f"'{number}'" if number else "nothing"
            raise DeviceError(f"{option} {text}: expected numbers as in 0,1 or the word all, found {found}")
        if int(number) not in machine.indices:
            raise DeviceError(f"{option} {text}: this machine has {gpu_list(machine.indices)}")
        if int(number) in chosen:
            raise DeviceError(f"{option} {text}: GPU {int(number)} is named twice")
        chosen.append(int(number))
    return chosen

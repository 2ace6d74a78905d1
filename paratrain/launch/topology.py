"""``paratrain topology``: the machine's links, the tree that follows them and the times to expect."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from paratrain.errors import DeviceError, TopologyError
from paratrain.topology.machine import Machine
from paratrain.topology.plan import plan_machine
from paratrain.topology.selection import select_gpus

LENET_BYTES = 431_080 * 4  # float32 parameters
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

_EXAMPLES = """\
  paratrain topology
  paratrain topology --machine list
  paratrain topology --machine dgx1-v100 --gpus 0,1,3
  paratrain topology --from topo.txt      (what nvidia-smi topo -m has printed on some machine)
"""


def byte_count(text: str) -> int:
    """The bytes that a text such as ``64M`` stands for; k, M and G are powers of 1000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)B?", text.strip().replace("K", "k"))
    count = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no size; expected a number of bytes, as in 1724320, 64M or 1.5G")
    return count


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = subparsers.add_parser(
        "topology",
        help="show how the GPUs are linked and the tree planned over them",
        description="Show how the GPUs of a machine are linked, the tree that gradients and parameters will take, and "
        "how long an exchange should take, from default figures of the links. Only reads; changes and moves nothing.",
        epilog=f"examples:\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-from",
        "--from",
        dest="source",
        metavar="FILE",
        help="read the saved output of `nvidia-smi topo -m` of any machine (- for standard input), not this machine",
    )
    known = "show a machine of the catalogue ('list' names them)"
    where.add_argument("-machine", "--machine", metavar="NAME", help=known)
    parser.add_argument("-json", "--json", action="store_true", help="print JSON (schema 1)")
    parser.add_argument("-gpus", "--gpus", metavar="0,1,3", help="plan for these GPUs only")
    at_root = "the GPU at the root of the tree (the first one)"
    parser.add_argument("-root", "--root", type=int, metavar="N", help=at_root)
    parser.add_argument(
        "-bytes",
        "--bytes",
        type=byte_count,
        default=LENET_BYTES,
        metavar="N[k|M|G]",
        help="size of the buffer to plan for, in powers of 1000 (LeNet's parameters, %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the machine, its tree, predictions and warnings; with --json the warnings go to standard error as well."""
    if arguments.machine == "list":
        from paratrain.topology.known_machines import machine_names

        print("\n".join(machine_names()))
        return 0
    machine = _machine(arguments)
    if not machine.gpus and (arguments.gpus is not None or arguments.root is not None):
        raise DeviceError(f"no NVIDIA GPU: {machine.no_gpu_reason}; leave out --gpus and --root, or give --from FILE")
    if arguments.gpus is not None:
        machine = machine.select(select_gpus(arguments.gpus, machine, "--gpus"))
    plan = plan_machine(machine, arguments.bytes, arguments.root)
    if arguments.json:
        from paratrain.topology.report import plan_values

        print(json.dumps(plan_values(plan), indent=2))
        for warning in machine.warnings:
            print(f"warning {warning.code}: {warning.message}", file=sys.stderr)
    else:
        from paratrain.topology.draw import draw_plan

        print(draw_plan(plan))
    return 0


def _machine(arguments: argparse.Namespace) -> Machine:
    """The machine that the options name: saved text, one of the catalogue, or this one."""
    if arguments.source is not None:
        from paratrain.topology.matrix import read_machine as read_text

        if arguments.source == "-":
            return read_text(sys.stdin.buffer.read(), "standard input")
        try:
            content = Path(arguments.source).read_bytes()
        except OSError as error:
            raise TopologyError(f"{arguments.source}: cannot be read: {error.strerror}") from error
        return read_text(content, arguments.source)
    if arguments.machine is not None:
        from paratrain.topology.known_machines import known_machine

        return known_machine(arguments.machine)
    from paratrain.topology.nvml import read_machine as read_driver

    return read_driver()

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.errors import TopologyError
from paratrain.topology.machine import Machine
from paratrain.topology.text.matrix import read_machine, read_machines
from tests.paths import REPOSITORY

SAMPLES = REPOSITORY / "tests" / "data" / "topology"
EXPECTED = REPOSITORY / "tests" / "golden" / "topology_expected.json"

EIGHT = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV4\tPIX\tSYS\tPIX\t0-15,32-47\t0\t\tN/A
GPU1\tNV4\t X \tNODE\tSYS\tSYS\t0-15,32-47\t0\t\tN/A
GPU2\tPIX\tNODE\t X \tPHB\tSYS\t16-31,48-63\t1\t\tN/A
GPU3\tSYS\tSYS\tPHB\t X \tSYS\t16-31,48-63\t1\t\tN/A
NIC0\tPIX\tSYS\tSYS\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks
"""
WORDS = [
    ["X", "NV4", "PIX", "SYS"],
    ["NV4", "X", "NODE", "SYS"],
    ["PIX", "NODE", "X", "PHB"],
    ["SYS", "SYS", "PHB", "X"],
]


def words(machine: Machine) -> list[list[str]]:
    return [[machine.link_class(a, b).word for b in machine.indices] for a in machine.indices]


def each_line(text: str, change: Callable[[str], str]) -> str:
    return "\n".join(change(line) for line in text.split("\n"))


def without(text: str, start: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.startswith(start))


def test_matrix_and_affinity() -> None:
    machine = read_machine(EIGHT, "text")
    assert words(machine) == WORDS
    assert [gpu.numa_node for gpu in machine.gpus] == [0, 0, 1, 1]
    assert machine.gpus[2].cpu_affinity == "16-31,48-63"
    assert machine.warnings == ()
    assert machine.source == "text"


DAMAGE: dict[str, Callable[[str], str]] = {
    "comment marks": lambda text: each_line(text, lambda line: f"# {line}"),
    "quote marks": lambda text: each_line(text, lambda line: f"> {line}"),
    "rank labels": lambda text: each_line(text, lambda line: f"[1,0]<stdout>:{line}"),
    "log times": lambda text: each_line(text, lambda line: f"2024-05-01T10:11:12.123Z {line}"),
    "markdown fence": lambda text: f"```text\n{text}\n```",
    "markdown table": lambda text: each_line(text, lambda line: "| " + " | ".join(line.split("\t")) + " |"),
    "commas": lambda text: text.replace("\t", ","),
    "single blanks": lambda text: each_line(text, lambda line: re.sub(r"\s+", " ", line).strip()),
    "indented": lambda text: each_line(text, lambda line: "    " + line),
    "no-break blanks": lambda text: text.replace("\t", "\u00a0\u00a0"),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "every second line empty": lambda text: text.replace("\n", "\n\n"),
    "escape codes": lambda text: each_line(text, lambda line: f"\x1b[4m{line}\x1b[0m"),
    "escape codes without their escape": lambda text: each_line(text, lambda line: f"[4m{line}[0m"),
    "glued header": lambda text: re.sub(r"(GPU\d)\t(?=GPU)", r"\1", text),
    "glued cells": lambda text: text.replace("NODE\tSYS", "NODESYS").replace("PIX\tNODE", "PIXNODE"),
    "a header cell missing": lambda text: text.replace("\tGPU2\tGPU3", "\tGPU3"),
    "no header": lambda text: text.split("\n", 1)[1],
    "lower case": str.lower,
    "double tabs": lambda text: text.replace("\t", "\t\t"),
    "text around": lambda text: f"$ nvidia-smi topo -m\n{text}\n# GPU0 is the old one\nuptime 5 days",
    "a row missing": lambda text: without(text, "GPU2"),
    "old words": lambda text: text.replace("SYS", "SOC"),
    "a string literal": lambda text: json.dumps(text),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_text(damage: str) -> None:
    assert words(read_machine(DAMAGE[damage](EIGHT), "text")) == WORDS


def test_utf_16_as_powershell_writes_it() -> None:
    assert words(read_machine(EIGHT.encode("utf-16"), "text")) == WORDS


def test_a_narrow_terminal() -> None:
    text = "\tGPU0\tGPU1\tGPU2\n\tGPU3\nGPU0 X NV4\nPIX SYS\nGPU1 NV4 X\nNODE SYS\nGPU2 PIX NODE\nX PHB\nGPU3 SYS SYS\nPHB X"
    assert words(read_machine(text, "text")) == WORDS


def test_repairs_are_named() -> None:
    text = without(EIGHT, "GPU3").replace("\tGPU2", "", 1)
    machine = read_machine(text, "box.txt")
    assert words(machine) == WORDS
    assert {warning.code for warning in machine.warnings} == {"T13"}
    messages = [warning.message for warning in machine.warnings]
    assert "box.txt: line 1: the header lacks GPU2" in messages
    assert "box.txt: the rows of GPU3 are missing; what the other rows say of them is used" in messages


def test_a_cut_text_gives_what_it_holds_and_names_the_rest() -> None:
    text = EIGHT[: EIGHT.index("GPU2\tPIX") + len("GPU2\tPIX\tNODE")]
    machine = read_machine(text, "box.txt")
    assert words(machine)[:3] == [*WORDS[:2], ["PIX", "NODE", "X", "?"]]
    messages = " ".join(warning.message for warning in machine.warnings)
    assert "line 4: the row of GPU2 is cut: 2 of 4 cells" in messages
    assert "nothing is said of the pairs 2-3" in messages


def test_a_word_cut_in_its_middle_is_not_believed() -> None:
    text = "\tGPU0\tGPU1\tGPU2\nGPU0\tX\tNV18\tNV18\nGPU1\tNV18\tX\tNV18\nGPU2\tNV18\tNV1"
    machine = read_machine(text, "text")
    assert words(machine)[2] == ["NV18", "NV18", "X"]


def test_an_unreadable_cell_is_filled_from_the_other_half() -> None:
    machine = read_machine(EIGHT.replace("NV4\t X \tNODE", "NV4\t X \t####"), "text")
    assert words(machine) == WORDS
    assert "the row of GPU1 is cut: 2 of 4 cells, then '####" in machine.warnings[0].message


def test_halves_that_contradict_each_other() -> None:
    machine = read_machine("\tGPU0\tGPU1\nGPU0\tX\tPIX\nGPU1\tSYS\tX", "text")
    assert machine.link_class(0, 1).word == "SYS"
    assert machine.warnings[0].pair == (0, 1)
    assert "GPU0 to GPU1 is PIX, but back it is SYS; SYS is used" in machine.warnings[0].message


def test_several_matrices() -> None:
    one = "\tGPU0\nGPU0\tX\n"
    machines = read_machines(one + EIGHT + EIGHT, "text")
    assert [len(machine.gpus) for machine in machines] == [1, 4, 4]
    (warning,) = read_machine(EIGHT + one, "text").warnings
    assert warning.message == "text holds 2 matrices; the first is used (they have 4 GPUs, 1 GPU)"
    assert read_machine(EIGHT + EIGHT, "text").warnings == ()


def test_a_p2p_matrix_beside_it_is_left_alone() -> None:
    p2p = " \tGPU0\tGPU1\n GPU0\tX\tNS\n GPU1\tNS\tX\n"
    assert [words(machine) for machine in read_machines(EIGHT + p2p, "text")] == [WORDS]


@pytest.mark.parametrize(("count", "switch"), [(6, True), (3, False)])
def test_a_switch_is_told_from_direct_links(count: int, switch: bool) -> None:
    rows = [f"GPU{a} " + " ".join("X" if a == b else f"NV{count}" for b in range(5)) for a in range(5)]
    assert read_machine("\n".join(["GPU0 GPU1 GPU2 GPU3 GPU4", *rows]), "text").nvswitch is switch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "box.txt: is empty; expected"),
        (" \n\n", "box.txt: is empty"),
        ("GPU0 GPU1\nFailed to run topology matrix\n", "box.txt:2: 'Failed to run topology matrix': .*run `paratrain"),
        ("The -i command line argument must be used in conjunction with -n or -p.", "takes no -i"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "could not reach the driver"),
        ("bash: nvidia-smi: command not found", "is not installed on that machine"),
        ("| NVIDIA-SMI 535.1  Driver Version: 535.1  CUDA Version: 12.2 |", "overview of nvidia-smi"),
        ("GPU 0: NVIDIA A100 (UUID: GPU-1)", "nvidia-smi -L"),
        (" \tGPU0\tGPU1\n GPU0\tX\tOK\n GPU1\tOK\tX\n", "box.txt:2: 'GPU0 X OK': .*topo -p2p"),
        ("\tGPU0\tGPU1\tCPU Affinity\n", "box.txt:1: .*no row of a GPU follows"),
        ("  NIC0:   NIC41\n  NIC1: mlx5_2\n", "box.txt:1: .*only a NIC Legend"),
        ("once upon a time\nGPU0 - an old one\n", "box.txt:1: 'once upon a time': expected the output"),
    ],
)
def test_what_is_no_matrix(text: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        read_machine(text, "box.txt")


@settings(deadline=None)
@given(st.data())
def test_a_lost_cell_never_changes_a_link_in_silence(data: st.DataObject) -> None:
    lines = [line.split("\t") for line in EIGHT.split("\n")[:5]]
    row, column = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    del lines[row][column]
    machine = read_machine("\n".join(" ".join(line) for line in lines), "text")
    assert words(machine) == WORDS or machine.warnings


@settings(deadline=None)
@given(st.text(alphabet="GPU0123NVXSYSPIX-|# \t\n\r\x1b[m", max_size=200) | st.binary(max_size=200))
def test_any_text_gives_a_machine_or_a_topology_error(text: str | bytes) -> None:
    try:
        machines = read_machines(text, "text")
    except TopologyError:
        return
    assert all(machine.gpus for machine in machines)


def samples() -> list[Path]:
    return sorted(SAMPLES.glob("*.txt"))


@pytest.mark.parametrize("path", samples(), ids=lambda path: path.stem)
def test_real_outputs(path: Path) -> None:
    expected = json.loads(EXPECTED.read_text()).get(path.name)
    if path.name.startswith("error_") or "_p2p_rw_" in path.name or "_p2p_under" in path.name or "SNIPPET" in path.name:
        with pytest.raises(TopologyError, match=rf"^{re.escape(path.name)}:\d+: '.+': .{{30}}"):
            read_machines(path.read_bytes(), path.name)
        return
    machines = read_machines(path.read_bytes(), path.name)
    if expected is None:
        assert "TRUNCATED" in path.name or path.name.startswith("polaris")
        assert bool(machines[0].warnings) == ("TRUNCATED" in path.name)
        return
    for matrix, machine in zip(expected, machines, strict=False):
        assert words(machine) == [[word.upper().replace("SOC", "SYS") for word in row] for row in matrix]
        assert machine.warnings == ()

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.errors import TopologyError
from paratrain.topology.machine import Machine
from paratrain.topology.text.matrix import read_machine, read_machines
from tests.unit.topology.styles import ENCODINGS, HANDED_ON, Style, Words, each_line, matrices, render, styles


def words(machine: Machine) -> Words:
    return [[machine.link_class(a, b).word for b in machine.indices] for a in machine.indices]


@pytest.mark.parametrize("handed_on", HANDED_ON)
@settings(deadline=None, max_examples=5)
@given(matrix=matrices(), style=styles)
def test_every_style_and_way(handed_on: str, matrix: Words, style: Style) -> None:
    machine = read_machine(HANDED_ON[handed_on](render(matrix, style)), "text")
    assert words(machine) == matrix
    assert machine.warnings == ()


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None, max_examples=5)
@given(matrix=matrices(), style=styles)
def test_every_encoding(encoding: str, matrix: Words, style: Style) -> None:
    assert words(read_machine(ENCODINGS[encoding](render(matrix, style)), "text")) == matrix


_TOGETHER = ["quote", "fence", "prompt", "carriage returns", "underlined", "indented", "window title", "padded", "bom"]


@settings(deadline=None, max_examples=40)
@given(matrix=matrices(), style=styles, ways=st.lists(st.sampled_from(_TOGETHER), max_size=4, unique=True))
def test_several_ways_after_one_another(matrix: Words, style: Style, ways: list[str]) -> None:
    text = render(matrix, style)
    for way in ways:
        text = HANDED_ON[way](text)
    assert words(read_machine(text, "text")) == matrix


@settings(deadline=None, max_examples=30)
@given(matrix=matrices(), style=styles)
def test_what_stands_beside_the_matrix(matrix: Words, style: Style) -> None:
    machine = read_machine(render(matrix, style), "text")
    said = dict(
        zip(("CPU Affinity", "NUMA Affinity", "GPU NUMA ID"), (style.affinity, style.numa, style.gpu_numa), strict=True)
    )
    for gpu in machine.gpus:
        assert gpu.cpu_affinity in ("", said["CPU Affinity"] if "CPU Affinity" in style.columns else "")
        first = re.match(r"\d+", style.numa) if "NUMA Affinity" in style.columns else None
        assert gpu.numa_node in (None, int(first[0]) if first else None)
        assert gpu.memory_numa_node in (None, 2)
        if style.tabs:
            assert gpu.cpu_affinity == (style.affinity if style.columns else "")
            assert gpu.numa_node == (int(first[0]) if first else None)
            assert gpu.memory_numa_node == (2 if len(style.columns) == 3 and style.gpu_numa == "2" else None)


def nothing_is_wrong_in_silence(text: str, matrix: Words, may_contradict: bool = False) -> Machine | None:
    """Read a damaged text: what it still says must be so, and what it lacks must be named."""
    try:
        machine = read_machine(text, "text")
    except TopologyError:
        return None
    size = len(matrix)
    wrong = [
        (link.a, link.b)
        for link in machine.links
        if link.b >= size or link.link_class.word not in (matrix[link.a][link.b], "?")
    ]
    assert not wrong or (may_contradict and machine.warnings), (wrong, machine.warnings)
    if words(machine) != matrix:
        assert machine.warnings
        assert {warning.code for warning in machine.warnings} == {"T13"}
    return machine


@settings(deadline=None, max_examples=120)
@given(matrix=matrices(12), style=styles, way=st.sampled_from([*_TOGETHER, "as it is"]), data=st.data())
def test_cut_anywhere(matrix: Words, style: Style, way: str, data: st.DataObject) -> None:
    text = HANDED_ON[way](render(matrix, style))
    machine = nothing_is_wrong_in_silence(text[: data.draw(st.integers(0, len(text)), label="cut")], matrix)
    if machine is not None and len(matrix) > 1:
        assert len(machine.gpus) == len(matrix), "the header says how many there are"


@settings(deadline=None, max_examples=60)
@given(matrix=matrices(12), style=styles, data=st.data())
def test_cut_at_a_column(matrix: Words, style: Style, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 100), label="width")
    cut = each_line(render(matrix, style), lambda line: line.expandtabs(8)[:width])
    nothing_is_wrong_in_silence(cut, matrix, may_contradict=True)


@settings(deadline=None, max_examples=60)
@given(matrix=matrices(12), style=styles, data=st.data())
def test_lines_lost_doubled_or_in_another_order(matrix: Words, style: Style, data: st.DataObject) -> None:
    lines = render(matrix, style).split("\n")
    rows = len(matrix) + 1
    lost = data.draw(st.sets(st.integers(0, rows - 1), max_size=3), label="lost")
    doubled = data.draw(st.integers(1, rows - 1), label="doubled")
    kept = [
        line
        for number, line in enumerate(lines[:rows])
        for line in [line] * (2 if number == doubled else 1)
        if number not in lost
    ]
    if 0 not in lost:
        kept[1:] = data.draw(st.permutations(kept[1:]), label="order")
    else:
        kept = [line for number, line in enumerate(lines[:rows]) if number not in lost]
    nothing_is_wrong_in_silence("\n".join([*kept, *lines[rows:]]), matrix)


@settings(deadline=None, max_examples=120)
@given(matrix=matrices(12), style=styles, data=st.data())
def test_a_lost_cell(matrix: Words, style: Style, data: st.DataObject) -> None:
    text = render(matrix, style)
    cells = list(re.finditer(r"(?<=[ \t])(?:NV\d+|SYS|SOC|NODE|PIX|PXB|PHB)[ \t]+", text.split("\n\n")[0]))
    if cells:
        lost = data.draw(st.sampled_from(cells), label="lost")
        nothing_is_wrong_in_silence(text[: lost.start()] + text[lost.end() :], matrix, may_contradict=True)


@settings(deadline=None, max_examples=120)
@given(matrix=matrices(12), style=styles, data=st.data())
def test_a_damaged_sign(matrix: Words, style: Style, data: st.DataObject) -> None:
    text = render(matrix, style)
    at = data.draw(st.integers(0, len(text) // 2), label="at")
    sign = data.draw(st.sampled_from("0123 NVXGPU\tS#\n\x1b\0"), label="sign")
    nothing_is_wrong_in_silence(text[:at] + sign + text[at + 1 :], matrix, may_contradict=True)


SIXTEEN = [["X" if a == b else "NV6" if a // 8 == b // 8 else "SYS" for b in range(16)] for a in range(16)]
ONE_LINE = "GPU0 GPU1 CPU Affinity GPU0 X NV4 0-15 GPU1 NV4 X 16-31 Legend: X = Self SYS = Connection"
GLUED = "GPU0GPU1GPU2GPU3GPU4GPU5GPU6GPU7GPU8GPU9GPU10GPU11GPU12GPU13GPU14GPU15mlx5_0"


def test_sixteen_gpus_with_glued_names() -> None:
    rows = render(SIXTEEN, Style(nic_name="mlx5", nic_count=1, columns=())).split("\n")
    assert words(read_machine("\n".join([GLUED, *rows[1:]]), "text")) == SIXTEEN
    glued_cells = [re.sub(r"(GPU\d+)\t", r"\1 ", row).replace("\tNV6\tNV6", "\tNV6NV6") for row in rows[1:]]
    assert words(read_machine("\n".join([GLUED, *glued_cells]), "text")) == SIXTEEN
    machine = read_machine("\n".join(rows[1:]), "text")
    assert words(machine) == SIXTEEN
    assert "no header" in machine.warnings[0].message


def test_a_text_whose_line_ends_are_lost() -> None:
    machine = read_machine(ONE_LINE, "text")
    assert words(machine) == [["X", "NV4"], ["NV4", "X"]]


def test_cores_glued_to_the_last_cell() -> None:
    text = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\tX\tSYS0-15\nGPU1\tSYS\tX16-31"
    assert words(read_machine(text, "text")) == [["X", "SYS"], ["SYS", "X"]]
    text = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\tX\tNV180-15\nGPU1\tNV18\tX\t16-31"
    assert words(read_machine(text, "text")) == [["X", "NV18"], ["NV18", "X"]]


def test_a_number_of_nvlinks_that_lost_a_digit() -> None:
    machine = read_machine("\tGPU0\tGPU1\nGPU0\tX\tNV1\nGPU1\tNV18\tX\n", "text")
    assert machine.link_class(0, 1).word == "NV18"
    assert machine.warnings[0].message == "text: GPU0 and GPU1: NV1 has lost a digit, NV18 is used"


def test_an_end_that_may_be_a_beginning() -> None:
    assert read_machine("\tGPU0\tGPU1\nGPU0\tX\tNV1", "text").link_class(0, 1).word == "?"
    assert read_machine("\tGPU0\tGPU1\nGPU0\tX\tNV1\n", "text").link_class(0, 1).word == "NV1"
    table = "| |GPU0|GPU1|GPU2|\n|GPU0|X|NV12|NV12|\n|GPU1|NV12|X|NV1|\n"
    assert read_machine(table, "text").link_class(1, 2).word == "?"


def test_a_row_that_lost_a_cell_behind_its_x() -> None:
    text = render(
        [
            ["X", "NV4", "PIX", "SYS"],
            ["NV4", "X", "PHB", "NODE"],
            ["PIX", "PHB", "X", "SYS"],
            ["SYS", "NODE", "SYS", "X"],
        ]
    )
    machine = read_machine(text.replace("NV4\t X \tPHB\tNODE", "NV4\t X \tNODE"), "text")
    assert words(machine)[1] == ["NV4", "X", "PHB", "NODE"]
    machine = read_machine(text.replace("GPU0\t X \tNV4\tPIX", "GPU0\t X \tPIX"), "text")
    assert words(machine)[0] == ["X", "NV4", "PIX", "SYS"]
    assert any(
        "GPU0 lacks its cell for GPU1" in warning.message or "GPU0 is cut" in warning.message
        for warning in machine.warnings
    )


def test_a_name_that_no_column_has() -> None:
    text = render(SIXTEEN).replace("\nGPU6\t", "\nGPU68\t")
    machine = read_machine(text, "text")
    assert words(machine) == SIXTEEN
    assert "no column is named GPU68" in machine.warnings[0].message


def test_a_part_of_a_machine() -> None:
    machine = read_machine("GPU4 GPU5\nGPU4 X PIX\nGPU5 PIX X\n", "text")
    assert machine.indices == (4, 5)
    assert "GPU0 is missing; the first is GPU4" in machine.warnings[0].message


def test_two_machines_in_one_paste() -> None:
    text = render(SIXTEEN) + "\nand the small one:\n" + render([["X", "PHB"], ["PHB", "X"]])
    assert [len(machine.gpus) for machine in read_machines(text, "text")] == [16, 2]
    machine = read_machine(text, "text")
    assert words(machine) == SIXTEEN
    assert machine.warnings[-1].message == "text holds 2 matrices; the first is used (they have 16 GPUs, 2 GPUs)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GPU 0: NVIDIA A100 (UUID: GPU-1)\n\t Link 0: 25 GB/s\n\t Link 1: 25 GB/s\n", "nvidia-smi nvlink"),
        ("GPU 0: Tesla\n\t Link 0: <inactive>\n", "nvidia-smi nvlink"),
        (
            "=== ROCm System Management Interface ===\n       GPU0   GPU1\nGPU0   0   XGMI\nGPU1   XGMI  0\n",
            "AMD's rocm-smi",
        ),
        ("P2P Connectivity Matrix\n     D\\D     0     1\n     0       1     1\n", "a table of measured rates"),
        ("The GPUs that have an affinity with CPU 0 are:\n 0, 1\n", "another answer of nvidia-smi topo"),
        ("\tGPU0\tGPU1\n GPU0\tX\tCNS\n GPU1\tCNS\tX\n\nLegend:\n\n  X = Self\n", "topo -p2p, which says who may copy"),
        ("   GPU0 GPU1\n0   X   SYS\n1  SYS   X\n", "no row of a GPU follows"),
    ],
)
def test_other_tables(text: str, message: str) -> None:
    with pytest.raises(TopologyError, match=rf"text:\d+: .*{re.escape(message)}"):
        read_machine(text, "text")


@pytest.mark.parametrize(
    "make",
    [
        lambda: "GPU0 " * 100_000,
        lambda: " ".join(f"GPU{n}" for n in range(10_000)) * 9,
        lambda: "GPU0 X " * 50_000,
        lambda: "\t" * 1_000_000 + "GPU0",
        lambda: "<" * 300_000,
        lambda: "\x1b[" * 300_000,
        lambda: "[1" * 300_000,
        lambda: "NV1" * 300_000,
        lambda: "a" * 1_000_000 + "|",
        lambda: "\n".join(f"[{n}.0] kernel: gpu{n % 7}: a line of a log that is no matrix" for n in range(8_000)),
        lambda: "GPU0 " + "X" * 300_000,
        lambda: "GPU9999 X\nGPU1 X",
    ],
)
def test_long_texts_of_another_kind_end_soon(make: Callable[[], str]) -> None:
    begin = time.process_time()
    with contextlib.suppress(TopologyError):
        read_machines(make(), "text")
    assert time.process_time() - begin < 20, "not a speed: what grows with the square of the length takes hours"

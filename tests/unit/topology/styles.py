"""Write a machine as ``nvidia-smi topo -m`` of some age does, and hand the text on as people do."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

Words = list[list[str]]
_NAMES = {"mlx5": "mlx5_{}", "NIC": "NIC{}", "roce": "rocep{}s0"}


@dataclass(frozen=True)
class Style:
    """How a version of nvidia-smi writes: columns beside the matrix, names of network cards, tabs or blanks."""

    nic_name: str = "NIC"
    nic_count: int = 0
    columns: tuple[str, ...] = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
    affinity: str = "0-31,64-95"
    numa: str = "0"
    gpu_numa: str = "N/A"
    tabs: bool = True
    far: str = "SYS"
    legend: bool = True


@st.composite
def matrices(draw: st.DrawFn, most: int = 20) -> Words:
    """A symmetric matrix of link words."""
    size = draw(st.integers(1, most))
    word = st.sampled_from(draw(st.sampled_from([["NV18"], ["NV1", "NV2", "NV12", "SYS"], LOCAL])))
    words = [["X"] * size for _ in range(size)]
    for a in range(size):
        for b in range(a):
            words[a][b] = words[b][a] = draw(word)
    return words


LOCAL = ["PIX", "PXB", "PHB", "NODE", "SYS", "NV4", "NV12"]
COLUMNS = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
styles = st.builds(
    Style,
    nic_name=st.sampled_from(sorted(_NAMES)),
    nic_count=st.sampled_from([0, 0, 1, 2, 10]),
    columns=st.integers(0, 3).map(lambda count: COLUMNS[:count]),
    affinity=st.sampled_from(["0-31,64-95", "0-7", "3", ""]),
    numa=st.sampled_from(["0", "1", "0,3-9", "N/A"]),
    gpu_numa=st.sampled_from(["N/A", "2"]),
    tabs=st.booleans(),
    far=st.sampled_from(["SYS", "SOC"]),
    legend=st.booleans(),
)


def render(words: Words, style: Style = Style()) -> str:
    """The text of a machine. Cells of network cards are PIX and SYS in turn."""
    size = len(words)
    nics = [_NAMES[style.nic_name].format(number) for number in range(style.nic_count)]
    rows = [["", *(f"GPU{n}" for n in range(size)), *nics, *style.columns]]
    said = dict(zip(COLUMNS, (style.affinity, style.numa, style.gpu_numa), strict=True))
    for number, row in enumerate(words):
        cells = [style.far if word == "SYS" else f" {word} " if word == "X" else word for word in row]
        beside = [said[column] for column in style.columns]
        if style.tabs and len(beside) == 3:
            beside.insert(2, "")
        rows.append([f"GPU{number}", *cells, *(["PIX", "SYS"][(number + n) % 2] for n in range(len(nics))), *beside])
    for number, name in enumerate(nics):
        towards = ["PIX" if (other + number) % 2 == 0 else style.far for other in range(size)]
        rows.append([name, *towards, *(" X " if n == number else style.far for n in range(len(nics)))])
    if style.tabs:
        lines = ["\t".join(row) for row in rows]
    else:
        lines = ["".join(cell.ljust(max(8, len(cell) + 1)) for cell in row).rstrip() for row in rows]
    return "\n".join([*lines, "", *(_LEGEND if style.legend else [])])


_LEGEND = [
    "Legend:",
    "",
    "  X    = Self",
    "  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)",
    "  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node",
    "  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)",
    "  NV#  = Connection traversing a bonded set of # NVLinks",
    "",
    "NIC Legend:",
    "",
    "  NIC0: mlx5_0",
    "",
]


def each_line(text: str, change: Callable[[str], str]) -> str:
    return "\n".join(change(line) for line in text.split("\n"))


def numbered(text: str, form: str) -> str:
    return "\n".join(form.format(number) + line for number, line in enumerate(text.split("\n"), start=1))


def from_two_ranks(text: str) -> str:
    return "\n".join(f"[1,{rank}]<stdout>:{line}" for line in text.split("\n") for rank in (0, 1))


def from_two_containers(text: str) -> str:
    return "\n".join(f"gpu-{rank}  | {line}" for line in text.split("\n") for rank in (1, 2))


def wrapped(text: str, width: int = 80) -> str:
    """As a terminal of this width shows it: tabs have become blanks, and long lines are broken wherever they reach it."""
    lines = [line.expandtabs(8) for line in text.split("\n")]
    return "\n".join("\n".join(line[at : at + width] for at in range(0, max(len(line), 1), width)) for line in lines)


def overstruck(text: str) -> str:
    return re.sub(r"GPU", "G\bGP\bPU\bU", text)


# Each hands a text on without loss: what is read of it must be the same machine.
HANDED_ON: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "comment #": lambda text: each_line(text, lambda line: f"# {line}"),
    "comment //": lambda text: each_line(text, lambda line: f"// {line}"),
    "comment --": lambda text: each_line(text, lambda line: f"-- {line}"),
    "comment *": lambda text: each_line(text, lambda line: f" * {line}"),
    "comment ;": lambda text: each_line(text, lambda line: f";; {line}"),
    "quote": lambda text: each_line(text, lambda line: f"> {line}"),
    "quote of a quote": lambda text: each_line(text, lambda line: f">> {line}"),
    "diff": lambda text: each_line(text, lambda line: f"+{line}"),
    "other diff": lambda text: each_line(text, lambda line: f"-{line}"),
    "fence": lambda text: f"Here:\n```bash\n$ nvidia-smi topo -m\n{text}\n```\nthanks",
    "prompt": lambda text: f"(base) me@gpu0:~$ nvidia-smi topo -m\n{text}\n(base) me@gpu0:~$ uptime\n 12:00 up 5 days",
    "windows prompt": lambda text: f"C:\\temp>nvidia-smi topo -m\r\n{text}".replace("\n", "\r\n"),
    "kernel log": lambda text: (
        text + "\n[  12.3] nvidia 0000:3b:00.0: enabling device\n[ 12.4] NVRM: GPU0 has fallen off"
    ),
    "timestamps": lambda text: each_line(text, lambda line: f"2024-05-01T10:11:12.123Z {line}"),
    "journal": lambda text: each_line(text, lambda line: f"May 01 10:11:12 gpu5 run.sh[123]: {line}"),
    "container": lambda text: each_line(text, lambda line: f"gpu-1  | {line}"),
    "container of a number": lambda text: each_line(text, lambda line: f"gpu5 | {line}"),
    "rank": lambda text: each_line(text, lambda line: f"[1,0]<stdout>:{line}"),
    "srun": lambda text: each_line(text, lambda line: f"0: {line}"),
    "two ranks": from_two_ranks,
    "two containers": from_two_containers,
    "line numbers": lambda text: numbered(text, "{:>6}\t"),
    "grep -n": lambda text: numbered(text, "{}:"),
    "numbers with a bar": lambda text: numbered(text, "{:>4} | "),
    "cat -A": lambda text: each_line(text, lambda line: line.replace("\t", "^I") + "$"),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "old carriage returns": lambda text: text.replace("\n", "\r"),
    "double carriage returns": lambda text: text.replace("\n", "\r\r\n"),
    "form feed": lambda text: "\f" + text,
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "padded": lambda text: each_line(text, lambda line: line.ljust(200)),
    "indented": lambda text: each_line(text, lambda line: "    " + line),
    "tab indented": lambda text: each_line(text, lambda line: "\t\t" + line),
    "no-break blanks": lambda text: text.replace("\t", "\u00a0\u00a0").replace(" ", "\u00a0"),
    "wide blanks": lambda text: text.replace("\t", "\u3000").replace("  ", "\u2003"),
    "other blanks": lambda text: text.replace("\t", "\u205f\u1680 "),
    "line separators": lambda text: text.replace("\n", "\u2028"),
    "next lines": lambda text: text.replace("\n", "\x85"),
    "entities": lambda text: html.escape(text).replace("\t", "&nbsp;&nbsp;").replace("  ", "&#160; "),
    "web page": lambda text: "<pre><code>" + html.escape(text).replace("\n", "<br/>") + "</code></pre>",
    "web table": lambda text: (
        "<table>" + each_line(text, lambda line: "<tr><td>" + "</td><td>".join(line.split("\t")) + "</td></tr>")
    ),
    "underlined": lambda text: each_line(text, lambda line: f"\x1b[4m{line}\x1b[0m"),
    "coloured cells": lambda text: re.sub(r"(NV\d+|SYS|PIX)", "\x1b[1;38;5;208m\\1\x1b[0m\x1b[K", text),
    "escape codes spelt out": lambda text: each_line(text, lambda line: f"\\x1b[4m{line}\\x1b[0m"),
    "escape codes without escape": lambda text: each_line(text, lambda line: f"[4m{line}[0m"),
    "window title": lambda text: f"\x1b]0;me@gpu0: ~\x07\x1b[?2004l{text}\x1b[?2004h",
    "cursor moves": lambda text: re.sub("[ \t]{2,}", lambda gap: f"\x1b[{len(gap[0])}C", text),
    "overstruck": overstruck,
    "one blank": lambda text: each_line(text, lambda line: re.sub(r"\s+", " ", line).strip()),
    "markdown": lambda text: each_line(text, lambda line: "| " + " | ".join(line.split("\t")) + " |"),
    "bold markdown": lambda text: re.sub(
        r"(GPU\d+)", r"**\1**", each_line(text, lambda line: "|".join(line.split("\t")))
    ),
    "drawn table": lambda text: each_line(text, lambda line: "\u2502 " + " \u2502 ".join(line.split("\t")) + " \u2502"),
    "csv": lambda text: each_line(text, lambda line: ",".join(f'"{cell}"' for cell in line.split("\t"))),
    "semicolons": lambda text: text.replace("\t", ";"),
    "latex": lambda text: each_line(text, lambda line: " & ".join(line.split("\t")) + " \\\\"),
    "lists": lambda text: each_line(text, lambda line: repr(line.split("\t")) + ","),
    "string literal": json.dumps,
    "literal lines": lambda text: each_line(text, lambda line: repr(line) + " +"),
    "lower case": str.lower,
    "bom": lambda text: "\ufeff" + text,
    "full width": lambda text: text.translate({code: code + 0xFEE0 for code in range(0x30, 0x5B)}),
    "wrapped at 80": wrapped,
    "wrapped at 132": lambda text: wrapped(text, 132),
    "wrapped at 61": lambda text: wrapped(text, 61),
    "p2p after it": lambda text: text + "\n \tGPU0\tGPU1\n GPU0\tX\tNS\n GPU1\tNS\tX\n",
    "p2p before it": lambda text: " \tGPU0\tGPU1\n GPU0\tX\tOK\n GPU1\tOK\tX\n\n" + text,
    "twice": lambda text: text + "\n\n" + text,
    "glued header": lambda text: re.sub(r"(GPU\d+)\s+(?=GPU\d+\s*(?:GPU|NIC|mlx|CPU|roce|$))", r"\1", text, flags=re.M),
}

ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "utf-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 big": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "utf-16 without a mark": lambda text: text.encode("utf-16-le"),
    "utf-16 big without a mark": lambda text: text.encode("utf-16-be"),
    "windows": lambda text: text.replace("\t", "\u00a0 ").encode("cp1252", errors="replace"),
}

"""Say what a text is that should have been the output of ``nvidia-smi topo -m`` and is not."""

from __future__ import annotations

import re

from paratrain.topology.text.matrix_lines import read_header
from paratrain.topology.text.matrix_text import Line

_HOW_TO = "write it with: nvidia-smi topo -m > FILE"
_NIC_LEGEND = "only a NIC Legend and no row of a GPU; the rest is lost or overwritten"
_KNOWN: list[tuple[str, str]] = [
    (
        r"Failed to run topology matrix",
        "nvidia-smi could not make its matrix, as happens in containers that may use no CPU and on Windows; "
        "run `paratrain topology` there without --from: it asks the driver itself",
    ),
    (
        r"must be used in conjunction with",
        f"nvidia-smi refused its options: topo -m describes all GPUs and takes no -i; {_HOW_TO}",
    ),
    (
        r"NVIDIA-SMI has failed|couldn't communicate with the NVIDIA driver|Failed to initialize NVML"
        r"|Unable to determine the device handle",
        "nvidia-smi could not reach the driver on that machine; mend that first",
    ),
    (r"No devices were found", "nvidia-smi found no GPU on that machine"),
    (r"nvidia-smi.*(?:not found|not recognized|No such file)", "nvidia-smi is not installed on that machine"),
    (r"Invalid combination of input arguments|is not a valid|Unrecognized option", f"nvidia-smi refused; {_HOW_TO}"),
    (r"NVIDIA-SMI \d+\.\d+.*Driver Version", f"this is the overview of nvidia-smi, not the matrix; {_HOW_TO}"),
    (
        r"Link \d+:\s*(?:[\d.]+ GB/s|<inactive>|$)",
        f"this is of nvidia-smi nvlink, which says how fast the links are but not whither they lead; {_HOW_TO}",
    ),
    (
        r"XGMI|rocm-smi|ROCm System Management",
        "this is of AMD's rocm-smi; paratrain reads the matrices of NVIDIA's nvidia-smi only",
    ),
    (
        r"P2P Connectivity Matrix|D\\D\s+\d|p2pBandwidthLatencyTest|memcpy CE .* bandwidth",
        f"this is a table of measured rates, whose links are not named; {_HOW_TO}",
    ),
    (
        r"GPUs that have an affinity with CPU|NUMA IDs of closest CPU|Nearest GPUs",
        f"this is another answer of nvidia-smi topo, not the matrix of -m; {_HOW_TO}",
    ),
    (r"GPU \d+: .*\(UUID: ", f"this is the list of nvidia-smi -L, not the matrix; {_HOW_TO}"),
]


def explain_unusable(lines: list[Line], source: str, p2p_line: Line | None = None) -> str:
    """The message for a text without a matrix: the line that shows what it is, what was found and what to do."""
    filled = [line for line in lines if line.text.strip()]
    if not filled:
        return f"{source}: is empty; expected the output of nvidia-smi topo -m"
    for pattern, meaning in _KNOWN:
        for line in filled:
            if re.search(pattern, line.text, re.IGNORECASE):
                return f"{source}:{line.number}: '{_short(line.text)}': {meaning}"
    if p2p_line is not None:
        meaning = "this is a matrix of nvidia-smi topo -p2p, which says who may copy from whom but not over which links"
        return f"{source}:{p2p_line.number}: '{_short(p2p_line.text)}': {meaning}; {_HOW_TO}"
    for line in filled:
        if read_header(line):
            return f"{source}:{line.number}: '{_short(line.text)}': a header, but no row of a GPU follows; {_HOW_TO}"
    for line in filled:
        if re.match(r"\s*NIC\d+\s*:", line.text) or re.search(r"NIC Legend", line.text):
            return f"{source}:{line.number}: '{_short(line.text)}': {_NIC_LEGEND}; {_HOW_TO}"
    first = filled[0]
    return f"{source}:{first.number}: '{_short(first.text)}': expected the output of nvidia-smi topo -m; {_HOW_TO}"


def _short(text: str) -> str:
    """The beginning of a line, on one line and without what a terminal cannot show."""
    plain = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return plain if len(plain) <= 60 else plain[:57] + "..."

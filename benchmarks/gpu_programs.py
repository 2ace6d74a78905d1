"""Programs that scripts/gpu-check runs as sections, and what they find: the unit tests, compute-sanitizer, tests of links.

    python benchmarks/gpu_programs.py units|sanitizer|links|exchange [--out FILE] [-- arguments of the program]

``units`` runs the tests of kernels and layers, which otherwise see a simulated GPU, on the real one. ``sanitizer`` runs some of
them under compute-sanitizer: memcheck, with each array in memory of its own, and racecheck. ``links`` is scripts/gpu/check_links,
``exchange`` scripts/gpu/check_exchange, whose exchange in shards has to reach 70% of the bandwidth of plain copies.
"""

from __future__ import annotations

import argparse
import glob
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_findings import Findings
from machine import REPOSITORY

_TESTS = ("tests/unit/backends/cupy", "tests/unit/layers/cupy")
_NEEDS_NO_GPU = "tests/unit/backends/cupy/test_kernels_compile.py"
"""Compiles for other GPUs as well, which takes a minute; the section ``kernels`` compiles for this one."""
_MOST_TRACEBACKS = 40
_SANITIZED = {
    "memcheck": (
        "tests/unit/backends/cupy/test_arrange_kernels.py", "tests/unit/backends/cupy/test_bias.py",
        "tests/unit/backends/cupy/test_updates.py", "tests/unit/backends/cupy/test_random_kernels.py",
        "tests/unit/layers/cupy/test_pooling.py", "tests/unit/layers/cupy/test_softmax.py",
        "tests/unit/layers/cupy/test_lrn.py", "tests/unit/layers/cupy/test_normalization.py",
        "tests/unit/layers/cupy/test_several_blobs.py", "tests/unit/layers/cupy/test_dropout.py",
    ),
    "racecheck": (
        "tests/unit/backends/cupy/test_updates.py", "tests/unit/backends/cupy/test_bias.py",
        "tests/unit/layers/cupy/test_softmax.py", "tests/unit/layers/cupy/test_normalization.py",
    ),
}  # fmt: skip
_PLACES = (
    "/usr/local/cuda*/bin",
    "/usr/local/cuda*/compute-sanitizer",
    "/opt/cuda*/bin",
    "/opt/nvidia/*/compute-sanitizer",
)
_GOAL = 0.7
_FOUND = 86
"""compute-sanitizer's exit code where it has found something."""


def pytest_command(report: Path, *words: str) -> list[str]:
    """Pytest on the real GPU: warnings of libraries are no errors here."""
    fixed = ["-p", "no:cacheprovider", "-W", "default", "-o", "addopts=--import-mode=importlib"]
    return [sys.executable, "-m", "pytest", *fixed, f"--junitxml={report}", *words]


def environment(**more: str) -> dict[str, str]:
    """That of the tests, which take the real GPU."""
    return {**os.environ, "PARATRAIN_REAL_GPU": "1", "OMP_NUM_THREADS": "1", **more}


def check_units(findings: Findings, words: list[str]) -> None:
    """All unit tests of the GPU's kernels and layers."""
    if importlib.util.find_spec("xdist") is not None and not words:
        # By "load" a test at which a worker ends is not tried again, as by "loadfile".
        words = ["-n", "4", "--dist", "load", "-p", "gpu_lost", "--max-worker-restart=30"]
    if importlib.util.find_spec("pytest_timeout") is not None:
        words = ["--timeout=60", "--timeout-method=thread", *words]  # a signal does not reach what waits for the GPU
    limit_s = 0.85 * float(os.environ.get("PARATRAIN_SECTION_S", "600"))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        chosen = [] if any(word.startswith("tests/") for word in words) else [*_TESTS, f"--ignore={_NEEDS_NO_GPU}"]
        command = pytest_command(report, "--tb=short", "-v", *chosen, *words)
        path = os.pathsep.join([os.environ.get("PYTHONPATH", str(REPOSITORY)), str(REPOSITORY / "benchmarks")])
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(PYTHONPATH=path))
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            findings.check("all tests in time", False, asked=f"{limit_s:.0f} s", found="some had not run")
            process.send_signal(signal.SIGINT)  # it reports what it has found
            code = process.wait()
        if not report.exists():
            findings.check("the tests", False, found=f"pytest ended with {code} and no report")
            return
        cases = list(ElementTree.parse(report).iter("testcase"))
    counts, failed = {"failed": 0, "skipped": 0}, set[str]()
    for case in cases:
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        for kind in ("failure", "error"):
            for found in case.iter(kind):
                said = (found.get("message") or kind)[:300]
                if name in failed and "crashed while running" in said:  # it has failed, and its worker ended for that
                    continue
                failed.add(name)
                counts["failed"] += 1
                findings.check(name, False, found=said)
                if counts["failed"] <= _MOST_TRACEBACKS:
                    findings.rows[-1]["traceback"] = (found.text or "")[-4000:]
        counts["skipped"] += case.find("skipped") is not None
    passed = len(cases) - counts["failed"] - counts["skipped"]
    text = f"{passed} passed, {counts['failed']} failed, {counts['skipped']} skipped"
    findings.check("all tests", passed > 0 and not counts["failed"], asked="none fails", found=text)


def check_sanitizer(findings: Findings, words: list[str]) -> None:
    """compute-sanitizer over some tests, file by file, as long as there is time."""
    places = [place for pattern in _PLACES for place in sorted(glob.glob(pattern))]
    found = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    if found is None:
        findings.skip("compute-sanitizer is not installed")
        return
    begin, section_s = time.monotonic(), float(os.environ.get("PARATRAIN_SECTION_S", "600"))
    untimed = ["--timeout=0"] if importlib.util.find_spec("pytest_timeout") is not None else []
    late = []
    for (tool, files), part in zip(_SANITIZED.items(), (0.6, 0.9), strict=True):
        stop = begin + part * section_s
        for file in files:
            left_s = stop - time.monotonic()
            what = f"{tool}, {Path(file).stem}"
            if left_s < 10:
                late.append(what)
                continue
            command = [
                found,
                "--tool",
                tool,
                "--error-exitcode",
                str(_FOUND),
                "--print-limit",
                "20",
                "--target-processes",
                "all",
            ]
            with tempfile.TemporaryDirectory() as folder:
                command += pytest_command(Path(folder) / "report.xml", "-x", *untimed, *words, file)
                plain = {"PARATRAIN_GPU_POOL": "0"} if tool == "memcheck" else {}
                try:
                    done = subprocess.run(
                        command, cwd=REPOSITORY, env=environment(**plain), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                        text=True, timeout=left_s, check=False,
                    )  # fmt: skip
                except subprocess.TimeoutExpired:
                    late.append(what)
                    continue
            print(done.stdout)
            refused = re.search(r"Device not supported|Unable to|not supported", done.stdout)
            if refused and "ERROR SUMMARY: 0 errors" not in done.stdout and not re.search(r"\d+ passed", done.stdout):
                findings.skip(f"compute-sanitizer cannot be used here: {refused[0]}")
                return
            summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", done.stdout)
            said = summary[-1] if summary else f"exit code {done.returncode}, no summary"
            findings.check(what, done.returncode == 0 and bool(summary), asked="nothing", found=said)
    if late:
        findings.goal("not finished in time", None, found=", ".join(late))


def check_links(findings: Findings, words: list[str]) -> None:
    """Bytes between two processes on the GPU, and between GPUs where there are several."""
    found = _script("check_links", words)
    if _says_no_gpu(findings, found):
        return
    for test in found.get("tests", []):
        text = f"{test.get('gbps') or 0:.1f} GB/s, {test.get('latency_us') or 0:.1f} us, bytes {test.get('verified')}"
        findings.check(
            f"two processes, {test['transport']}", test.get("verified") == "ok", asked="every byte", found=text
        )
    findings.note("links", found)
    findings.check("scripts/gpu/check_links", found["exit code"] == 0, found=f"exit code {found['exit code']}")


def check_exchange(findings: Findings, words: list[str]) -> None:
    """All exchanges between two ranks on one GPU: sums, and bandwidth."""
    limit = os.environ.get("CUPY_GPU_MEMORY_LIMIT", "")
    found = _script(
        "check_exchange", words, **({"CUPY_GPU_MEMORY_LIMIT": str(int(limit) // 2)} if limit.isdecimal() else {})
    )
    if _says_no_gpu(findings, found):
        return
    findings.note("exchange", found)
    for row in found.get("exchanges", []):
        what = f"{row['exchange']} through {row['through']}"
        findings.check(f"{what}: sums", not row["problem"], asked="right", found=row["problem"] or "right")
        if "seconds" in row:
            share = row.get("share_of_copying")
            text = f"{1e3 * row['seconds']:.2f} ms" + ("" if share is None else f", {share:.0%} of copying")
            reached, asked = (None, "") if share is None else (share >= _GOAL, f"{_GOAL:.0%} of copying")
            findings.goal(f"{what}: {found['values']:,} values", reached, asked=asked, found=text)
    findings.check("scripts/gpu/check_exchange", found["exit code"] == 0, found=f"exit code {found['exit code']}")


def _script(name: str, words: list[str], **more: str) -> dict[str, Any]:
    """Run a script of scripts/gpu; return what it wrote with --json, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, str(REPOSITORY / "scripts" / "gpu" / name), "--json", str(file), *words]
        done = subprocess.run(
            command,
            env={**os.environ, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout)
        found = json.loads(file.read_text()) if file.exists() else {}
    return {**found, "exit code": done.returncode, "printed": done.stdout}


def _says_no_gpu(findings: Findings, found: dict[str, Any]) -> bool:
    """Whether a script, which asks NVML and not CUDA, found nothing to test; the section is skipped then."""
    line = str(found["printed"]).strip().splitlines()[0] if found["printed"] else ""
    if line.startswith("no GPU"):
        findings.skip(line)
    return bool(findings.skipped)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("units", "sanitizer", "links", "exchange"))
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments, words = parser.parse_known_args()
    findings = Findings(arguments.out)
    check = {"units": check_units, "sanitizer": check_sanitizer, "links": check_links, "exchange": check_exchange}
    with findings.trying(arguments.what):
        check[arguments.what](findings, [word for word in words if word != "--"])
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

"""scripts/gpu-check and scripts/gpu-bench, on the simulated GPU and without one."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.paths import REPOSITORY
from tests.simulated_gpu_path import environment

BENCHMARKS = REPOSITORY / "benchmarks"
pytestmark = [
    pytest.mark.skipif(not (REPOSITORY / "scripts/gpu-check").is_file(), reason="no checkout around these tests"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="the simulated GPU compiles kernels by g++"),
]

FAKE_TORCH = """#!/bin/sh
echo 'a warning'
echo '{"precision": "tf32", "torch": "2", "ms": 1e9, "least_ms": 1, "most_ms": 1, "blocks": 3, "gigabytes": 1.5}'
"""


def run(*command: str, gpus: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=environment(gpus),
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rows(script: str, folder: Path, *words: str) -> list[dict[str, Any]]:
    """What a section finds; all its checks are right."""
    file = folder / "found.json"
    done = run(script, *words, "--out", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    assert found and all(row.get("is_right", True) for row in found)
    return found


@pytest.mark.parametrize(
    ("script", "words"), [("gpu-check", "nothing was checked"), ("gpu-bench", "nothing was timed")]
)
def test_without_a_gpu_nothing_is_done(script: str, words: str, tmp_path: Path) -> None:
    done = run(str(REPOSITORY / "scripts" / script), "--out", str(tmp_path), gpus=0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"no GPU, {words}: ")
    assert done.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_some_sections_and_their_report(tmp_path: Path) -> None:
    script = str(REPOSITORY / "scripts" / "gpu-check")
    done = run(script, "--only", "environment,layers", "--skip", "layers-bfloat16", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Simulated GPU, 4.3 GB free; sections: 2")
    assert [line.split()[:2] for line in lines[1:3]] == [["environment", "OK"], ["layers", "OK"]]
    values = json.loads((tmp_path / "gpu-simulated-gpu-partial.json").read_text())
    environment_found, layers = values["sections"]
    assert environment_found["notes"]["properties"]["name"] == "Simulated GPU"
    assert len(layers["rows"]) == len(list((REPOSITORY / "tests/golden/layers").glob("*.npz")))
    table = (tmp_path / "gpu-simulated-gpu-partial.md").read_text()
    assert f"| {len(layers['rows'])} checks | 1e-4 |  | right |" in table
    assert not list(tmp_path.glob("*.new"))
    (tmp_path / "file").touch()
    nowhere = run(script, "--only", "layers", "--out", str(tmp_path / "file" / "results"))
    assert nowhere.returncode == 2
    assert "no report can be written (--out): " in nowhere.stderr
    unknown = run(script, "--only", "layer", "--out", str(tmp_path))
    assert unknown.returncode == 2
    assert "no section 'layer'; there are environment, first-arrays, " in unknown.stderr


def test_what_was_found_until_it_is_ended_is_kept(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(REPOSITORY / "scripts" / "gpu-check"),
        "--only",
        "environment,units",
        "--out",
        "here",
    ]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(1), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("environment "):
            assert process.poll() is None
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "interrupted" in rest
    found = json.loads((tmp_path / "here" / "gpu-simulated-gpu-partial.json").read_text())["sections"]
    assert found[0]["status"] == "OK"
    assert found[0]["rows"]


def test_the_comparison_with_a_peer(tmp_path: Path) -> None:
    peer = tmp_path / "python"
    peer.write_text(FAKE_TORCH)
    peer.chmod(0o755)
    words = [
        "--nets",
        "lenet",
        "--precisions",
        "tf32,bfloat16",
        "--batch",
        "2",
        "--seconds",
        "0.05",
        "--peers",
        "eager,compile",
    ]
    script = str(REPOSITORY / "scripts" / "gpu-bench")
    done = run(script, *words, "--peer-python", str(peer), "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    [section] = json.loads((tmp_path / "gpu-bench-simulated-gpu-partial.json").read_text())["sections"]
    found = {row["what"]: row for row in section["rows"]}
    assert found["lenet, 2, tf32: beside PyTorch eager"]["is_reached"]
    assert (
        found["lenet, 2, bfloat16: PyTorch compile"]["found"] == "exit code 0"
    )  # it printed nothing for this precision
    assert "lenet, 2, bfloat16: beside PyTorch eager" not in found
    own = section["notes"]["steps"]["sides"]["paratrain"]["bfloat16"]
    assert own["recorded"].startswith("The step is recorded as a graph")
    assert 0 < own["least_ms"] <= own["ms"] <= own["most_ms"]


def test_what_sections_find(tmp_path: Path) -> None:
    same = rows("gpu_repeat.py", tmp_path, "--nets", "lenet", "--precisions", "float16", "--steps", "4")
    assert [row["what"].split(": ")[1] for row in same] == [
        "recorded",
        "finite",
        "graph and layer by layer",
        "two runs",
    ]
    losses = rows("gpu_golden.py", tmp_path, "solvers", "--names", "adam")
    assert float(losses[0]["found"]) < 1e-4
    updates = rows("gpu_update.py", tmp_path, "--types", "Adam", "--copied", "100000", "--blobs", "2")
    assert [row["what"] for row in updates] == ["copies within the GPU", "Adam of 0.0349 M parameters"]
    rows("gpu_shares.py", tmp_path, "--net", "lenet", "--batch", "2", "--precisions", "bfloat16", "--steps", "2")
    notes = json.loads((tmp_path / "found.json").read_text())["notes"]
    [layers] = [layers for layers in notes["bfloat16"]["layers"] if layers["layer"] == "conv2"]
    assert layers["forward_ms"] > 0 and layers["backward_tflops"] > 0
    rows("gpu_first.py", tmp_path, "arrays")
    rows("gpu_first.py", tmp_path, "steps", "--small", "--nets", "lenet", "--precisions", "float32,float16")
    rows(
        "gpu_kernels.py", tmp_path, "--types", "float64", "--families", "lrn", "--jobs", "1"
    )  # has fewer than in float32
    rows("gpu_kernels.py", tmp_path, "--types", "float32", "--families", "updates,pooling,lrn", "--jobs", "1")
    notes = json.loads((tmp_path / "found.json").read_text())["notes"]
    assert {"update_adam", "sum_totals"} < set(notes["kernels"]["updates, float32"])
    assert "packed_forward" in notes["kernels"]["lrn, float32"]
    assert {"global_forward", "max_forward", "average_backward_packed"} < set(notes["kernels"]["pooling, float32"])
    tests = rows("gpu_programs.py", tmp_path, "units", "tests/unit/backends/cupy/test_workspace.py")
    assert tests[-1]["found"].endswith(" passed, 0 failed, 0 skipped")


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_sections")


def test_a_section_that_crashes_or_hangs_leaves_the_others(sections: Any, tmp_path: Path) -> None:
    programs = {
        "crashes": "f.check('a', True); import os; os.kill(os.getpid(), 11)",
        "hangs": "import subprocess; p = subprocess.Popen(['sleep', '60']); open('pid', 'w').write(str(p.pid)); p.wait()",
        "wrong": "f.check('a', False, asked='1', found='2'); f.goal('b', False)",
        "raises": "raise ValueError('no')",
        "silent": "pass",
        "right": "f.check('a', True); sys.exit(f.exit_code)",
        "unable": "f.skip('no such thing')",
    }
    chosen = []
    for name, text in programs.items():
        head = (
            "import sys; from pathlib import Path; from gpu_findings import Findings; f = Findings(Path(sys.argv[-1]))"
        )
        (tmp_path / f"{name}.py").write_text(
            f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{head}\n{text}\n".replace(
                "open('pid'", f"open({str(tmp_path / 'pid')!r}"
            )
        )
        chosen.append(sections.Section(name, (str(tmp_path / f"{name}.py"),), 1.5, is_alone=name == "wrong"))
    chosen.append(sections.Section("needing", ("none.py",), 1.0, needs=("no_such_module",)))
    chosen.append(sections.Section("launching", ("none.py",), 1.0, needs=("$no_such_program",)))
    reported: list[Any] = []
    begin = time.monotonic()
    found = sections.run_sections(chosen, tmp_path, free_bytes=1 << 30, total_s=60, jobs=3, report=reported.append)
    assert time.monotonic() - begin < 15
    assert {outcome.name for outcome in reported} == {outcome.name for outcome in found}
    lines = {outcome.name: outcome.line.split(" s  ")[-1] for outcome in found}
    assert [outcome.status for outcome in found] == ["FAILED"] * 5 + ["OK"] + ["skipped"] * 3
    assert lines["crashes"].startswith("ended by SIGSEGV; see crashes.log")
    assert lines["hangs"].startswith("did not end within 2 s; see hangs.log: it said nothing; File ")
    assert "; File " in lines["crashes"]
    assert lines["wrong"] == "a: 2; goals missed: 1"
    assert lines["raises"].endswith("ValueError: no")
    assert lines["silent"].startswith("it found nothing")
    assert [lines[name] for name in ("unable", "needing", "launching")] == [
        "no such thing", "no_such_module is not installed", "no no_such_program on the path"
    ]  # fmt: skip
    with pytest.raises(ProcessLookupError):
        for _ in range(50):  # the process that the section had started
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)
            time.sleep(0.1)
    vital = [
        sections.Section(name, (str(tmp_path / f"{name}.py"),), 1.5, is_alone=True, is_vital=True) for name in programs
    ]
    begun = [vital[0], vital[3], vital[5]]  # crashes, when something was right; raises; right
    found = sections.run_sections(begun, tmp_path, free_bytes=1 << 30, total_s=60, jobs=1, report=reported.append)
    assert [outcome.status for outcome in found] == ["FAILED", "FAILED", "skipped"]
    assert found[2].line.endswith("raises has failed")
    late = sections.run_sections(chosen[:1], tmp_path, free_bytes=1 << 30, total_s=1, jobs=1, report=reported.append)
    assert late[0].line.endswith("the time is over (--minutes)")


PARTS = """
import os, sys, time, types
from pathlib import Path
sys.path.insert(0, BENCHMARKS)
from gpu_findings import Findings
def lost():
    raise RuntimeError("an illegal memory access")
def crash():
    os.kill(os.getpid(), 11)
def lose():
    runtime = types.SimpleNamespace(deviceSynchronize=lost)
    sys.modules["cupy"] = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    lost()
findings = Findings(Path(sys.argv[-1]))
acts = {"one": str, "crash": crash, "two": str, "lose": lose, "three": str, "wrong": int, "hang": lambda: time.sleep(60)}
for name in findings.each(list(acts)):
    with findings.trying(name):
        findings.check(name, acts[name]() == "")
sys.exit(findings.exit_code)
"""


def test_a_part_that_crashes_hangs_or_loses_the_gpu_leaves_those_after_it(sections: Any, tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS.replace("BENCHMARKS", repr(str(BENCHMARKS))))
    section = sections.Section("parts", (str(tmp_path / "parts.py"),), 30.0, quiet_s=0.5)
    [found] = sections.run_sections(
        [section], tmp_path, free_bytes=1 << 30, total_s=60, jobs=1, report=lambda outcome: None
    )
    assert found.status == "FAILED"
    told = {row["what"]: row["found"] or row["is_right"] for row in found.rows}
    assert list(told) == ["one", "crash", "two", "lose", "three", "wrong", "hang"]
    assert (told["one"], told["two"], told["three"], told["wrong"]) == (True, True, True, False)
    assert told["crash"].startswith("ended by SIGSEGV: ") and "parts.py" in told["crash"]
    assert told["lose"] == "RuntimeError: an illegal memory access"
    assert told["hang"].startswith("it hangs: nothing new for 0.5 s: ") and "parts.py" in told["hang"]


def test_a_worker_of_pytest_that_has_lost_the_gpu_ends(sections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, ended = importlib.import_module("gpu_lost"), []
    monkeypatch.setattr(plugin, "gpu_is_lost", lambda: True)
    monkeypatch.setattr(plugin.os, "_exit", ended.append)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    for has_failed, codes in ((False, []), (True, [87]), (False, [87])):
        plugin.pytest_runtest_logreport(SimpleNamespace(failed=has_failed))
        plugin.pytest_runtest_logfinish()
        assert ended == codes


def test_the_end_of_a_run_says_what_matters(sections: Any) -> None:
    report, step = importlib.import_module("gpu_report"), importlib.import_module("gpu_step")
    wrong = [{"what": f"w{number}", "asked": "1", "found": "2", "is_right": False} for number in range(20)]
    goal = {"what": "g", "asked": "5 times", "found": "6 times", "is_reached": True}
    lines = report.summary(
        [sections.Outcome("a", "FAILED", rows=wrong), sections.Outcome("b", "OK", rows=[wrong[3], goal])]
    )
    assert lines[:3] == ["wrong:", "  a: w0: 2 (asked 1)", "  b: w3: 2 (asked 1)"]
    same = [{"what": f"w{number}", "asked": "", "found": "x" * 70, "is_right": False} for number in range(5)]
    alike = report.summary([sections.Outcome("a", "FAILED", rows=same)])
    assert alike == ["wrong:", f"  a: w0: {'x' * 70} (and 4 more like it)"]
    ended = report.summary([sections.Outcome("c", "FAILED", reason="ended by SIGSEGV; see c.log")])
    assert ended == ["wrong:", "  c: ended by SIGSEGV; see c.log"]
    assert lines[-3:] == ["  and 5 more", "goals:", "  reached g: 6 times (asked 5 times)"]
    turns = [{"ms": ms, "least_ms": ms - 1, "most_ms": ms + 1} for ms in (3.0, 9.0, 4.0)]
    found = step.together([*turns, {"problem": "late"}])
    assert (found["ms"], found["least_ms"], found["most_ms"]) == (4.0, 2.0, 10.0)
    assert step.together([{"problem": "late"}]) == {"problem": "late"}


def test_a_log_that_shows_trouble_at_the_end_is_not_right(sections: Any) -> None:
    training = importlib.import_module("gpu_training")
    good = "I1122 16:17:46 recorded.py:189] The step is recorded as a graph of 14 layers\nI1122 Optimization Done."
    assert training.sign_of_trouble(good) == ""
    bad = "Exception ignored in: 'cupy.cuda.graph.Graph.__dealloc__'"
    assert training.sign_of_trouble(f"{good}\n{bad}\n  more") == bad
    assert training.sign_of_trouble("Optimization Done.") == "no step was recorded"


def test_a_copy_without_git_is_described(sections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = importlib.import_module("machine")
    monkeypatch.setenv("PATH", "")
    assert "commit unknown" in machine.describe()
    monkeypatch.setenv("PARATRAIN_COMMIT", "1234abc")
    assert "commit 1234abc" in machine.describe()

"""docs/adding_layers.md, followed literally: its files are written down and its script is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A folder with every file that the page gives."""
    page = repository / "docs" / "adding_layers.md"
    if not page.is_file():
        pytest.skip("docs/adding_layers.md is not here: this is not a checkout")
    files = re.findall(
        r"^`([\w.]+)`:\n\n```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in files] == [
        "soft_sign.py", "my_layers.py", "train_test.prototxt", "solver.prototxt", "train.py",
    ]  # fmt: skip
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def last_loss(output: str) -> float:
    return float(re.findall(r"^loss ([\d.e+-]+)$", output, re.MULTILINE)[-1])


def test_the_script_trains(folder: Path, repository: Path) -> None:
    done = run(folder, repository, sys.executable, "train.py")
    assert done.returncode == 0, done.stderr
    assert last_loss(done.stdout) < 0.1


def test_the_script_trains_on_two_ranks(folder: Path, repository: Path, mpirun: str) -> None:
    done = run(folder, repository, mpirun, "-n", "2", sys.executable, "train.py")
    assert done.returncode == 0, done.stderr
    assert last_loss(done.stdout) < 0.1


@pytest.fixture
def plain(folder: Path) -> Path:
    """The same net without the layer that only a script can import."""
    net = folder / "train_test.prototxt"
    net.write_text(net.read_text().replace('"SoftSign"', '"TanH"'))
    solver = folder / "solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 200", "max_iter: 20"))
    return folder


def test_the_command_line_refuses_code_unless_it_is_allowed(plain: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "paratrain", "train", "solver.prototxt", "--cpu"]
    refused = run(plain, repository, *command)
    assert refused.returncode == 1
    assert re.search(r"layer 'data' \(Python\): .*'TwoMoons' of module 'my_layers'.*--allow-python", refused.stderr)
    assert "Traceback" not in refused.stderr
    allowed = run(plain, repository, *command, "--allow-python")
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.parametrize("verb", ["test", "time"])
def test_so_do_the_other_verbs(verb: str, plain: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "paratrain", verb, "-model", "train_test.prototxt", "-iterations", "1", "--cpu"]
    if verb == "test":
        (plain / "w.py").write_text(
            "import paratrain as caffe\ncaffe.Net('train_test.prototxt', caffe.TEST).save('w.caffemodel')\n"
        )
        assert run(plain, repository, sys.executable, "w.py").returncode == 0
        command += ["-weights", "w.caffemodel"]
    refused = run(plain, repository, *command)
    assert refused.returncode == 1
    assert "--allow-python" in refused.stderr
    allowed = run(plain, repository, *command, "--allow-python")
    assert allowed.returncode == 0, allowed.stderr


def test_check_runs_no_code_either(plain: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "paratrain", "check", "train_test.prototxt"]
    refused = run(plain, repository, *command)
    assert refused.returncode == 1
    assert "layer 'data' (Python): runs code that the file names" in refused.stdout
    allowed = run(plain, repository, *command, "--allow-python")
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr


def test_an_exception_shows_the_users_traceback(plain: Path, repository: Path) -> None:
    module = plain / "my_layers.py"
    module.write_text(module.read_text().replace("label = self.random", "label = self.missing_attribute"))
    done = run(
        plain, repository, sys.executable, "-m", "paratrain", "train", "solver.prototxt", "--cpu", "--allow-python"
    )
    assert done.returncode == 1
    assert "layer 'data' (Python): my_layers.TwoMoons.forward failed: AttributeError" in done.stderr
    assert re.search(r'File ".*my_layers\.py", line \d+, in forward', done.stderr)

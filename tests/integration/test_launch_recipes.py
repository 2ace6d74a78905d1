"""The recipes: that they are printed and shipped, and that the commands in them are commands of paratrain."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from paratrain.launch import launch
from paratrain.launch.hosts import read_host_file
from paratrain.launch.recipe_files import recipe_names
from tests.integration.cli import error, paratrain_here
from tests.paths import REPOSITORY

RECIPES = REPOSITORY / "launch"
SCRIPTS = sorted(path.name for path in RECIPES.glob("*.sh"))


def test_every_recipe_is_printed_as_it_is(tmp_path: Path) -> None:
    assert recipe_names() == sorted(path.name for path in RECIPES.iterdir() if path.is_file() and path.suffix != ".py")
    for name in recipe_names():
        printed = paratrain_here(tmp_path, "launch", "--print", name)
        assert (printed.returncode, printed.stdout) == (0, (RECIPES / name).read_text())
    assert paratrain_here(tmp_path, "launch", "--print", "slurm").stdout.startswith("#!/bin/bash")
    unknown = error(paratrain_here(tmp_path, "launch", "--print", "sge"))
    assert unknown == f"there is no recipe 'sge'; there are {', '.join(recipe_names())}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_valid_and_ask_for_a_solver(name: str, tmp_path: Path) -> None:
    script = RECIPES / name
    assert script.stat().st_mode & stat.S_IXUSR
    shell = script.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", str(script)], check=True)
    done = subprocess.run([shell, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def make_paratrain(folder: Path, version: str = "paratrain 1") -> dict[str, str]:
    """An environment whose `paratrain` tells its version, and else writes its words into a file."""
    program = folder / "bin" / "paratrain"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "{version}"; exit; }}\necho "$@" > {folder}/words\n'
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}


def started(folder: Path) -> list[str]:
    words = shlex.split((folder / "words").read_text())
    assert words[0] == "launch"
    launch._parse(words[words.index("train") :])  # leaves with a usage message where train would
    return words


def test_the_slurm_recipe(tmp_path: Path) -> None:
    environment = {**make_paratrain(tmp_path), "SLURM_NTASKS": "8"}
    subprocess.run(["bash", RECIPES / "slurm.sh", "s.prototxt", "--quiet"], cwd=tmp_path, env=environment, check=True)
    assert started(tmp_path)[:5] == ["launch", "-n", "8", "--restarts", "3"]
    assert started(tmp_path)[5:] == ["train", "s.prototxt", "--quiet", "--resume", "auto", "--keep", "3"]


def test_the_host_file_recipe_looks_at_every_host_first(tmp_path: Path) -> None:
    environment = make_paratrain(tmp_path)
    (tmp_path / "hosts.txt").write_text(
        (RECIPES / "hosts.txt").read_text() + "  [fe80::1]:2 # a remark\n\tnode4\tslots=2\n"
    )
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/asked\nexec sh -c "$2"\n')
    shell.chmod(0o755)

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(RECIPES / "host_file.sh"), "hosts.txt", "s.prototxt"]
        variables = {**environment, "SSH": str(shell), **variables}
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    assert (tmp_path / "asked").read_text().split() == ["node1", "node2", "fe80::1", "node4"]
    assert started(tmp_path) == ["launch", "--hostfile", "hosts.txt", "--restarts", "3", "train", "s.prototxt"]
    unreachable = run(SSH="false")
    assert unreachable.returncode == 1
    assert "node1: cannot be reached" in unreachable.stderr
    shell.write_text('#!/bin/sh\necho "paratrain 2"\n')
    assert "node1 has paratrain 2, this machine paratrain 1" in run().stderr


def test_the_host_list_is_one_that_launch_reads() -> None:
    assert [str(host) for host in read_host_file(str(RECIPES / "hosts.txt"))] == ["node1:2", "node2:2"]


def test_the_command_of_the_mpi_job_is_one_of_paratrain() -> None:
    text = (RECIPES / "mpijob.yaml").read_text()
    block = re.search(r'command: \["paratrain", "launch"\]\n\s+args:\n((?:\s+- .*\n)+)', text)
    assert block is not None
    words = [line.strip().removeprefix("- ") for line in block[1].splitlines()]
    place = words.index("train")
    launch._parse(words[place:])
    parsed = launch._parse(["launch", *words])
    assert (parsed.hostfile, parsed.restarts, parsed.words) == ("/etc/mpi/hostfile", 3, words[place:])
    # its own time to end lies within the pod's
    assert parsed.grace + 15 <= int(re.search(r"terminationGracePeriodSeconds: (\d+)", text)[1])

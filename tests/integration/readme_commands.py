"""Running the commands that a readme shows, as they stand there.

Most of what a small command takes is importing numpy, paratrain, scikit-learn and matplotlib. So `paratrain` and `python` are
not started but forked from a process that has imported these already.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.paths import REPOSITORY

__all__ = ["Checkout", "commands"]

_IMPORTED_BEFORE = [
    "matplotlib.pyplot",
    "paratrain.backends.onednn",
    "paratrain.launch.cli",
    "paratrain.launch.train",
    "paratrain.pycaffe",
    "sklearn.datasets",
]


def commands(readme: Path) -> list[str]:
    """The lines of the blocks of shell commands, those that end with a backslash joined with the next."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


class Checkout:
    """A folder with the examples and the data of the tests, in which `paratrain`, `python` and `mpirun` are those under test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(REPOSITORY / "examples", folder / "examples", ignore=shutil.ignore_patterns("*_lmdb"))
        (folder / "tests").symlink_to(REPOSITORY / "tests")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "paratrain").write_text(
            f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}:$PYTHONPATH" exec "{sys.executable}" -m paratrain "$@"\n'
        )
        (programs / "paratrain").chmod(0o755)
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path}
        self.forks: ForkServerContext = multiprocessing.get_context("forkserver")
        self.forks.set_forkserver_preload(_IMPORTED_BEFORE)

    def run(self, command: str) -> str:
        """Run a line of shell; return what it has said."""
        words = shlex.split(command)
        settings = []
        while re.match(r"\w+=", words[0]):
            settings.append(words.pop(0))
        if words[0] in ("paratrain", "python"):
            status, said = self._fork(dict(setting.split("=", 1) for setting in settings), words)
        else:
            shell = ["bash", "-c", command]
            done = subprocess.run(
                shell, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
            )
            status, said = done.returncode, done.stdout + done.stderr
        assert status == 0, f"{command}\n{said}"
        return said

    def run_readme(
        self, example: str, smaller: Mapping[str, str], stand_ins: Mapping[str, str] | None = None
    ) -> list[str]:
        """As :meth:`run_page`, for the readme of an example."""
        return self.run_page(f"examples/{example}/readme.md", smaller, stand_ins)

    def run_page(self, page: str, smaller: Mapping[str, str], stand_ins: Mapping[str, str] | None = None) -> list[str]:
        """Run all commands of a page of the repository in turn; return what each has said.

        ``smaller`` adds arguments to commands that would take long, by a regular expression that is found in them.
        ``stand_ins`` copies snapshots of such a shorter run, under the names that the next command takes: to from.
        """
        shown = commands(REPOSITORY / page)
        assert shown, f"{page} shows no commands"
        unused = [part for part in smaller if not any(re.search(part, line) for line in shown)]
        assert not unused, f"{page} has no command with {unused}"
        said = []
        for line in shown:
            additions = [arguments for part, arguments in smaller.items() if re.search(part, line)]
            said.append(self.run(" ".join([line, *additions])))
            for wanted, made in (stand_ins or {}).items():
                for file in self.folder.glob(f"{made}.*"):
                    shutil.copy(file, self.folder / f"{wanted}{file.suffix}")
        return said

    def _fork(self, settings: dict[str, str], words: Sequence[str]) -> tuple[int | None, str]:
        output = self.folder / "output.txt"
        process = self.forks.Process(target=_be, args=(str(self.folder), output.name, settings, list(words)))
        process.start()
        process.join()
        status = process.exitcode
        process.close()
        return status, output.read_text()


def _be(folder: str, output: str, settings: dict[str, str], words: list[str]) -> None:
    """Be the command, in a process of its own."""
    os.chdir(folder)
    os.environ.update(settings)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.path[:0] = [str(REPOSITORY), *filter(None, settings.get("PYTHONPATH", "").split(os.pathsep))]
    program, *arguments = words
    status: object = 0
    try:
        if program == "paratrain":
            from paratrain.launch.cli import main

            status = main(arguments)
        elif arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.exit(status)  # type: ignore[arg-type]

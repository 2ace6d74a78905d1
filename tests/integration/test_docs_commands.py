"""The commands that the pages show are commands of paratrain: all are parsed, those that are quick are run.

What the pages quote of messages is what the code says, and every page has its place in the site's menu.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paratrain.launch.cli import _VERBS, _parser
from tests.integration.cli import paratrain_here
from tests.integration.test_help_examples import examples_folder  # noqa: F401  (a fixture)
from tests.paths import DATA, REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md")), *sorted((REPOSITORY / "examples").rglob("*.md"))]
FENCE = re.compile(r"^```(?:sh|console|bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
COMMAND = re.compile(r"(?:\$ |! ?|\w+=\S+ )*(?:mpirun (?:-\w+ \S+ )*|srun (?:-\S+ )*)?paratrain( [^|>#]*)?(?:[|>#].*)?")

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs is not here: this is not a checkout")


def shown(text: str) -> Iterator[list[str]]:
    """The words behind ``paratrain`` of every line of a block that is a command."""
    for block in FENCE.finditer(text):
        for line in block[1].replace("\\\n", " ").splitlines():
            found = COMMAND.fullmatch(line.strip())
            if found and found[1] and not re.match(r" \d", found[1]):  # the output of --version
                yield shlex.split(found[1])


def mentioned(text: str) -> Iterator[list[str]]:
    """The same of commands within sentences, which may be shortened."""
    for span in SPAN.finditer(FENCE.sub("", text)):
        found = COMMAND.fullmatch(span[1])
        if found and found[1] and "..." not in found[1]:
            yield shlex.split(found[1])


def parser_of(verb: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = _parser(verb)._subparsers._group_actions[0].choices[verb]  # type: ignore
    return found


def parse(words: list[str]) -> str:
    """What the real parser says against a command, and against the one that it launches; empty where it takes them."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(io.StringIO()):
            _parser(words[0]).parse_args(words)
            if words[0] == "launch" and "train" in words:
                inner = words[words.index("train") :]
                _parser("train").parse_args(inner)
    except SystemExit as leaving:
        if leaving.code:
            return complaint.getvalue() or f"exit code {leaving.code}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in shown(text):
        assert words[0] in _VERBS or words[0].startswith("-"), words
        assert parse(words) == "", words
    for words in mentioned(text):
        if words[0].isupper() or words[0].startswith("-"):  # `paratrain COMMAND --help`
            continue
        assert words[0] in _VERBS, words
        known = {*parser_of(words[0])._option_string_actions}
        if words[0] == "launch" and "train" in words:
            known |= {*parser_of("train")._option_string_actions}
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
        assert options <= known, words


def test_commands_are_found() -> None:
    count = sum(len([*shown(page.read_text()), *mentioned(page.read_text())]) for page in PAGES)
    assert count > 120


def test_an_unknown_option_is_noticed() -> None:
    assert "--no-such" in parse(["train", "solver.prototxt", "--no-such"])
    assert "--no-such" in parse(["launch", "-n", "2", "train", "solver.prototxt", "--no-such"])


PAGES_TO_RUN = (
    "converting", "data", "resuming", "many_gpus", "training", "checking", "plots_and_reports", "troubleshooting", "index",
)  # fmt: skip


QUICK = re.compile(
    r"paratrain ((?:train|test|time|check|upgrade_\w+|device_query|convert_\w+|compute_image_mean|data|plot|report|parse_log|"
    r"summarize|draw) [^#>|]+?)\s*(?:#.*)?"
)


def quick_commands() -> list[str]:
    """What the pages of a user's tasks show that one process does in a moment with the files of the help's examples."""
    found = {}
    for name in PAGES_TO_RUN:
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        lines = [*FENCE.findall(text), *(span[1] for span in SPAN.finditer(FENCE.sub("", text)))]
        for line in "\n".join(lines).splitlines():
            words = QUICK.fullmatch(line)
            if words and not re.search(r"-gpu|\.\.\.|(?<![\w=.])[A-Z][A-Z_]*\b|^train -", words[1]):
                found[re.sub(r"(?<=max_iter=)\d+", "4", words[1])] = None
    return list(found)


def test_quick_commands_run(examples_folder: Path) -> None:  # noqa: F811
    """In the order of the pages: some work on what those before them have made."""
    shutil.copytree(DATA / "images" / "images", examples_folder / "photos")
    shutil.copy(DATA / "images" / "list.txt", examples_folder / "train.txt")
    commands = quick_commands()
    assert len(commands) > 15
    for command in commands:
        done = paratrain_here(examples_folder, *shlex.split(command))
        assert done.returncode == 0, (command, done.stderr[-2000:])


@pytest.mark.parametrize("page", ["resuming", "many_gpus"])
def test_programs_run(page: str, examples_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(examples_folder)
    programs = re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert programs
    for program in programs:
        names: dict[str, Any] = {}
        exec(compile(program, page, "exec"), names)
        assert names["solver"].iter >= 100


FOREIGN = (  # what MPI, ssh, Slurm, containers and Caffe say
    "Runtime environment uses", "There are not enough slots", "Permission denied", "Host key verification",
    "ssh: Could not", "A daemon failed", "No module named", "Bus error", "MDB_READERS_FULL", "Resource temporarily",
    "already held by process", "taskset",
)  # fmt: skip


def test_messages_are_quoted_as_they_are() -> None:
    """Of every message at the start of a row of troubleshooting.md three words in a row are in the code."""
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "paratrain").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", sources)
    checked = 0
    for cell in re.findall(r"^\| (.*?) \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE):
        for message in SPAN.findall(cell):
            pieces = [piece.strip(" ()'.,;:") for piece in re.split(r"\.\.\.|\d[\d.,]*|'[^']*'", message)]
            if max(piece.count(" ") for piece in pieces) < 2 or any(word in message for word in FOREIGN):
                continue
            runs = [
                " ".join(run)
                for words in map(str.split, pieces)
                for run in zip(words, words[1:], words[2:], strict=False)
            ]
            assert any(run in code for run in runs), message
            checked += 1
    assert checked > 20


def test_every_page_is_in_the_menu() -> None:
    spec = importlib.util.spec_from_file_location("navigation", DOCS / "site" / "navigation.py")
    assert spec and spec.loader
    navigation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(navigation)
    pages = [name for _, page, below in navigation.MENU for name in (page, *below)]
    assert len(pages) == len(set(pages))
    assert {*pages, "index"} == {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}

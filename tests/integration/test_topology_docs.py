"""What docs/topology.md shows is what the command prints, and what it lists is all there is.

To write the outputs anew: PYTHONPATH=. python tests/integration/test_topology_docs.py
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import paratrain_here
from tests.paths import DATA, REPOSITORY

PAGE = REPOSITORY / "docs" / "topology.md"
BOX = DATA / "topology" / "l20_4gpu_node_pix_middle_pair.txt"
BLOCK = re.compile(r"(?<=```console\n)\$ paratrain ([^\n|]+?)(?: \| tail -n (\d+))?\n(.*?)(?=```)", re.DOTALL)


def printed(folder: Path, command: str, last: str | None) -> str:
    done = paratrain_here(folder, *command.split())
    assert done.returncode == 0, done.stderr
    return "".join(done.stdout.splitlines(keepends=True)[-int(last or 0) :])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("docs")
    shutil.copy(BOX, made / "box.txt")
    return made


@pytest.mark.parametrize("block", list(BLOCK.finditer(PAGE.read_text())), ids=lambda block: block[1].split("--")[-1])
def test_outputs_are_what_the_command_prints(block: re.Match[str], folder: Path) -> None:
    found = printed(folder, block[1], block[2])
    assert block[3] == found, f"write the page anew: PYTHONPATH=. python {Path(__file__).relative_to(REPOSITORY)}"


def names_in(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        yield from values
        for value in values.values():
            yield from names_in(value)
    elif isinstance(values, list):
        for value in values:
            yield from names_in(value)


def test_every_field_of_the_json_is_explained(folder: Path) -> None:
    explained = set(re.findall(r"`(\w+)`", PAGE.read_text().partition("\n## JSON\n")[2].partition("\n## ")[0]))
    for command in (
        "--from box.txt --tree sharded --simulate",
        "--machine caffe-4x-pcie --nodes 2 --network 12",
        "--ranks 2",
    ):
        done = paratrain_here(folder, "topology", *command.split(), "--json")
        assert set(names_in(json.loads(done.stdout))) <= explained


def test_every_code_is_explained() -> None:
    sources = [path for part in ("topology", "linktest") for path in (REPOSITORY / "paratrain" / part).rglob("*.py")]
    used = {code for path in sources for code in re.findall(r'"(T\d\d)"', path.read_text())}
    explained = re.findall(r"^\| (T\d\d) \|", PAGE.read_text(), re.MULTILINE)
    assert len(used) > 10
    assert used <= set(explained)
    assert explained == sorted(set(explained))


def test_every_option_is_named_in_the_page() -> None:
    text = paratrain_here(Path.cwd(), "topology", "--help").stdout
    options = set(re.findall(r"(?<= )--([a-z]+)", text)) - {"help", "topology", "timeout"}
    page = PAGE.read_text()
    assert {option for option in options if f"--{option}" not in page} == set()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        shutil.copy(BOX, Path(place, "box.txt"))
        page = PAGE.read_text()
        PAGE.write_text(
            BLOCK.sub(
                lambda block: block[0][: len(block[0]) - len(block[3])] + printed(Path(place), block[1], block[2]), page
            )
        )

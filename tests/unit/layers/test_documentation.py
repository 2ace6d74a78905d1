"""docs/layers.md names the layer types that exist, and fields that their messages have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paratrain.fillers import FILLERS
from paratrain.layers import LAYERS
from paratrain.proto import LayerParameter

PAGE = Path(__file__).parents[3] / "docs" / "layers.md"


def rows() -> Iterator[tuple[str, str]]:
    """The type and the fields of every row of the page's tables."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and cells[1] not in ("type", "---"):
            yield cells[1], cells[2]


@pytest.fixture(autouse=True)
def _needs_the_page() -> None:
    if not PAGE.is_file():
        pytest.skip("docs/layers.md is not here: this is not a checkout")


def test_every_type_is_described() -> None:
    assert sorted(kind for kind, _ in rows()) == LAYERS.names()


def test_every_field_exists() -> None:
    checked = 0
    for kind, fields in rows():
        for message, names in re.findall(r"`(\w+)`(?:: ([^;]*))?", fields):
            field = LayerParameter.DESCRIPTOR.fields_by_name[message]
            assert field.message_type is not None
            known = field.message_type.fields_by_name
            for name in re.findall(r"\b[a-z_]+\b", names.replace("(or", "(")):
                assert name in known, f"{kind}: {message} has no field {name}"
                checked += 1
    assert checked > 50


def test_every_filler_is_described() -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## Fillers") : text.index("## Worth knowing")]
    assert sorted(set(re.findall(r"`(\w+)`", section))) == FILLERS.names()

"""The limits of blobs, and what the machine says of its memory."""

from __future__ import annotations

import pytest

from paratrain.blob import SyncedMemory, limits
from paratrain.errors import NetError, ShapeMismatchError


def test_the_largest_blob_is_caffes() -> None:
    assert limits.check_count((2**31 - 1,)) == 2**31 - 1
    with pytest.raises(ShapeMismatchError, match=r"\(65536, 32768\) would have 2,147,483,648 values"):
        limits.check_count((65536, 32768))


def test_the_machine_knows_its_memory() -> None:
    free_bytes = limits.available_bytes()
    if free_bytes is None:
        pytest.skip("this system does not tell")
    assert 1 << 20 < free_bytes < 1 << 50


def test_a_block_that_does_not_fit_is_refused_when_it_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: 10**9)
    block = SyncedMemory(2**31 - 1)
    with pytest.raises(
        NetError, match=r"a block of 2,147,483,647 values would take 8 GiB of memory; 954 MiB are available"
    ):
        block.host()
    limits.check_bytes(10**9, "as much as there is")


def test_where_nobody_knows_everything_may_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: None)
    limits.check_bytes(1 << 60, "anything")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1024, "1 KiB"), (1_720_000, "1.64 MiB"), (1 << 40, "1 TiB")],
)
def test_bytes_are_shown_with_their_unit(count: int, text: str) -> None:
    assert limits.format_bytes(count) == text

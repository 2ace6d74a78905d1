"""Who is told of a wait."""

from __future__ import annotations

import time

from paratrain.comm.patience import tell_waits, wait_until


def test_long_waits_are_told_with_their_length_and_their_end() -> None:
    told: list[tuple[int | None, float]] = []
    tell_waits(lambda peer, waited_s: told.append((peer, waited_s)))
    try:
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() - begin > 0.3, peer=2)
        assert [peer for peer, _ in told] == [2] * (len(told) - 1) + [None]
        assert len(told) > 2
        lengths = [waited_s for _, waited_s in told[:-1]]
        assert lengths == sorted(lengths)
        assert 0.05 <= lengths[0] < lengths[-1] < time.monotonic() - begin
        told.clear()
        wait_until(lambda: True)
        assert told == []
        wait_until(lambda: time.monotonic() - begin > 0.6)
        assert told[0][0] == -1
    finally:
        tell_waits(None)

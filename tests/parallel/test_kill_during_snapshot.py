"""SIGKILL while a snapshot is written; scripts/soak/kill_during_snapshot does it more often."""

from __future__ import annotations

import random
from pathlib import Path

from tests.soak.kill_during_snapshot import soak


def test_there_is_always_a_good_snapshot(tmp_path: Path) -> None:
    seed = random.randrange(2**31)
    result = soak(tmp_path, 5, seed)
    assert result.kill_count == len(result.good) == 5, f"seed {seed}"

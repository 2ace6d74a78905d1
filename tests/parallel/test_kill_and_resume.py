"""SIGKILL of all ranks, and resuming; scripts/soak/kill_and_resume does it for every type of solver and more often."""

from __future__ import annotations

import random
from pathlib import Path

from tests.soak.kill_and_resume import soak


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, mpirun: str) -> None:
    seed = random.randrange(2**31)
    result = soak(tmp_path, "Adam", 2, 2, random.Random(seed), mpirun)
    assert len(result.killed_at) == 2, f"seed {seed}"
    assert result.is_same, f"seed {seed}: {result}"

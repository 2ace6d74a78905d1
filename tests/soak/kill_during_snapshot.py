"""Kill a training run with SIGKILL while it writes a snapshot, over and over, and go on from what is there.

    python -m tests.soak.kill_during_snapshot --count 50

After each kill there must be a good snapshot, no older than the one before, and every file that is there under its own
name must be whole. At the end the run that was killed so often must have the same weights and history, byte for byte,
as one that was not.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from paratrain.proto import NetParameter, SolverState, read_binary
from paratrain.snapshot import find_newest, read_training_state, training_name
from tests.integration.cli import COMMAND, ENVIRONMENT

# Random rows, dropout, and weights of 8 MB, so that a snapshot takes a while.
NET = """
name: "soak"
layer { name: "data" type: "DummyData" top: "x" top: "label"
  dummy_data_param { shape { dim: 2 dim: 1000 } shape { dim: 2 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "x" }
layer { name: "wide" type: "InnerProduct" bottom: "x" top: "wide"
  inner_product_param { num_output: 2000 weight_filler { type: "xavier" } } }
layer { name: "last" type: "InnerProduct" bottom: "wide" top: "last"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.001 momentum: 0.9 lr_policy: "fixed" random_seed: 1 solver_mode: CPU
max_iter: {last} snapshot: {every} snapshot_prefix: "{prefix}"
"""
_START_S = 60.0
_LONGEST_S = 0.15  # a snapshot takes about half of it here


@dataclass
class Result:
    """What was seen."""

    kill_count: int = 0
    cut_count: int = 0
    """Kills that left a snapshot unfinished."""
    good: list[int] = field(default_factory=list)
    """The iteration of the newest good snapshot after each kill."""
    wall_s: float = 0.0


def soak(folder: Path, count: int, seed: int) -> Result:
    """Kill ``count`` times in ``folder``, then finish; raise AssertionError where something is lost or broken."""
    rng, result, begin = random.Random(seed), Result(), time.perf_counter()
    (folder / "net.prototxt").write_text(NET)
    _write_solver(folder, "killed", last=10**6, every=1)
    for _ in range(count):
        _kill_one(folder, rng)
        result.kill_count += 1
        result.cut_count += _is_cut(folder)
        result.good.append(_check(folder))
        assert result.good == sorted(result.good), f"an older snapshot is the newest good one: {result.good}"
    last = result.good[-1] + 3
    for prefix in ("killed", "straight"):
        _write_solver(folder, prefix, last=last, every=0)
        subprocess.run(_command(prefix), cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, timeout=600)
    for kind, message in (("caffemodel", NetParameter), ("solverstate", SolverState)):
        killed, straight = (
            read_binary(folder / f"{prefix}_iter_{last}.{kind}", message) for prefix in ("killed", "straight")
        )
        if isinstance(killed, SolverState) and isinstance(straight, SolverState):
            killed.ClearField("learned_net")
            straight.ClearField("learned_net")
        assert killed == straight, f"the {kind} of the killed run is another than that of the uninterrupted one"
    assert not list(folder.glob(".*.tmp")), "temporary files are left behind"
    result.wall_s = time.perf_counter() - begin
    return result


def _kill_one(folder: Path, rng: random.Random) -> None:
    """Start the run; kill it while it writes its second snapshot, or shortly after."""
    before = {path.name for path in folder.iterdir()}
    with subprocess.Popen(
        _command("killed"), cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        try:
            _wait_for(run, folder, before, "*.trainstate")
            _wait_for(run, folder, before, f".*.{run.pid}.*.tmp")
            time.sleep(rng.uniform(0, _LONGEST_S))
            assert run.poll() is None, f"the run has ended by itself: {run.communicate()[1].decode()}"
        finally:
            run.kill()


def _wait_for(run: subprocess.Popen[bytes], folder: Path, before: set[str], pattern: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and run.poll() is None:
        with contextlib.suppress(OSError):
            if any(path.name not in before for path in folder.glob(pattern)):
                return
        time.sleep(0.001)
    raise AssertionError(f"the run has written no {pattern}: {run.communicate()[1].decode()[-2000:]}")


def _is_cut(folder: Path) -> bool:
    """Whether a snapshot was not finished: a temporary file, or files without the trainstate that ends them."""
    stems = {path.name.split(".")[0] for path in folder.glob("killed_iter_*.caffemodel")}
    whole = {path.name.split(".")[0] for path in folder.glob("killed_iter_*.trainstate")}
    return bool(stems - whole) or bool(list(folder.glob(".*.tmp")))


def _check(folder: Path) -> int:
    """Every file is whole and there is a good snapshot: return its iteration."""
    for path in folder.glob("killed_iter_*.caffemodel"):
        read_binary(path, NetParameter)
    for path in folder.glob("killed_iter_*.solverstate"):
        read_binary(path, SolverState)
    for path in folder.glob("killed_iter_*.trainstate"):
        read_training_state(path)
    newest = find_newest(str(folder / "killed"))
    assert newest is not None, f"there is no good snapshot among {sorted(path.name for path in folder.iterdir())}"
    return read_training_state(training_name(newest)).iteration


def _command(prefix: str) -> list[str]:
    return [*COMMAND, "train", f"{prefix}.prototxt", "--resume", "auto", "--keep", "2"]


def _write_solver(folder: Path, prefix: str, *, last: int, every: int) -> None:
    (folder / f"{prefix}.prototxt").write_text(SOLVER.format(prefix=prefix, last=last, every=every))


def main() -> None:
    """Kill as often as the command line says, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="kills (default: 50)")
    parser.add_argument("--seed", type=int, default=None, help="decides the moments; drawn and printed where left out")
    arguments = parser.parse_args()
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), arguments.count, seed)
    sys.stdout.write(
        f"seed {seed}: killed {result.kill_count} times, {result.cut_count} of them with a snapshot unfinished, in "
        f"{result.wall_s:.0f} s\nnewest good snapshot after each kill: {' '.join(map(str, result.good))}\n"
        "the run finished with the same bytes as an uninterrupted one\n"
    )


if __name__ == "__main__":
    main()

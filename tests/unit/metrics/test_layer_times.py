from __future__ import annotations

import pytest

from paratrain.activity import Activity
from paratrain.metrics import LayerTimes, SeveralWriters
from paratrain.metrics.sink import Figure


def test_passes_that_train_count_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("paratrain.metrics.layer_times.time.perf_counter", lambda: float(next(now)))
    activity = Activity()
    times = LayerTimes(activity)
    step = [
        ("clear", "gradients"), ("exchange", "parameters"), ("data", "d"), ("forward", "conv"), ("forward", "loss"),
        ("backward", "conv"), ("exchange", "gradients"), ("update", ""),
    ]  # fmt: skip
    test = [("test", ""), ("data", "d"), ("forward", "conv"), ("snapshot", "")]
    for phase, name in [*step, step[0], *test, *step[1:], ("between steps", ""), ("forward", "conv"), ("ending", "")]:
        activity.enter(phase, name)
    assert times.record() == {
        "steps": 2,
        "forward_s": {"d": 2.0, "conv": 2.0, "loss": 2.0},
        "backward_s": {"conv": 2.0},
    }
    times.close()
    activity.enter("forward", "conv")


def test_several_sinks_get_the_same_record_and_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.metrics.several.time.time", lambda: 12.34567)
    taken: list[dict[str, Figure]] = []

    class Keeper:
        def write(self, **figures: Figure) -> None:
            taken.append(figures)

        def close(self) -> None:
            taken.append({})

    several = SeveralWriters([Keeper(), Keeper()])
    several.write(iteration=1)
    several.close()
    assert taken == [{"iteration": 1, "time": 12.346}, {"iteration": 1, "time": 12.346}, {}, {}]

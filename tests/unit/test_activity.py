"""Where a rank says that it is."""

from __future__ import annotations

from paratrain.activity import Activity


def test_says_where_it_is_and_counts() -> None:
    activity = Activity()
    assert str(activity) == "iteration 0, starting"
    activity.iteration = 7
    activity.enter("forward", "conv1")
    assert str(activity) == "iteration 7, forward of 'conv1'"
    activity.enter("update")
    assert (str(activity), activity.count) == ("iteration 7, update", 2)


def test_tells_a_listener_what_begins() -> None:
    heard: list[tuple[str, str]] = []
    activity = Activity()
    activity.enter("data", "mnist")
    activity.listener = lambda phase, name: heard.append((phase, name))
    activity.enter("forward", "conv1")
    activity.enter("update")
    assert heard == [("forward", "conv1"), ("update", "")]

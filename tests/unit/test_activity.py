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


def test_tells_its_listeners_what_begins() -> None:
    heard: list[tuple[str, str, str]] = []

    def first(phase: str, name: str) -> None:
        heard.append(("first", phase, name))

    activity = Activity()
    activity.enter("data", "mnist")
    activity.add_listener(first)
    activity.enter("forward", "conv1")
    activity.add_listener(lambda phase, name: heard.append(("second", phase, name)))
    activity.enter("update")
    activity.remove_listener(first)
    activity.enter("test")
    assert heard == [
        ("first", "forward", "conv1"),
        ("first", "update", ""),
        ("second", "update", ""),
        ("second", "test", ""),
    ]

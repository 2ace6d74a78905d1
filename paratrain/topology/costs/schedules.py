"""Exchanges as lists of transfers that wait for each other, for the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.topology.costs.exchanges import Transfer
from paratrain.topology.tree import Tree


@dataclass(frozen=True)
class Task:
    """One transfer, which may begin when the tasks with the numbers `after` have ended."""

    source: int
    target: int
    byte_count: float
    after: tuple[int, ...] = ()


def reduce_tasks(trees: Sequence[Tree], byte_count: float, chunk_count: int = 1) -> list[Task]:
    """The way up one tree or several, each of which moves an equal shard, cut into chunks.

    In each tree a parent receives one transfer at a time: of the first chunk from each child in order, then of the
    second. A member sends a chunk when it has it from all of its children.
    """
    size = byte_count / (len(trees) * chunk_count)
    tasks: list[Task] = []
    for tree in trees:
        bottom_up = list(tree.top_down())[::-1]
        numbers: dict[tuple[int, int], int] = {}  # the task that sends a member's chunk to its parent
        turn = dict.fromkeys(bottom_up, -1)  # the task that a parent received last
        for chunk in range(chunk_count):
            for member in bottom_up:
                for child in tree.children[member]:
                    after = [numbers[below, chunk] for below in tree.children[child][-1:]]
                    after += [number for number in (turn[member], numbers.get((child, chunk - 1), -1)) if number >= 0]
                    turn[member] = numbers[child, chunk] = len(tasks)
                    tasks.append(Task(child, member, size, tuple(dict.fromkeys(after))))
    return tasks


def broadcast_tasks(trees: Sequence[Tree], byte_count: float, chunk_count: int = 1) -> list[Task]:
    """The way down: a member sends one transfer at a time, of each chunk to its children, the last one added first."""
    size = byte_count / (len(trees) * chunk_count)
    tasks: list[Task] = []
    for tree in trees:
        top_down = list(tree.top_down())
        has: dict[tuple[int, int], int] = {}  # the task that brought a chunk to a member
        turn = dict.fromkeys(top_down, -1)  # the task that a member sent last
        for chunk in range(chunk_count):
            for member in top_down:
                for child in reversed(tree.children[member]):
                    after = [number for number in (has.get((member, chunk), -1), turn[member]) if number >= 0]
                    turn[member] = has[child, chunk] = len(tasks)
                    tasks.append(Task(member, child, size, tuple(dict.fromkeys(after))))
    return tasks


def round_tasks(rounds: Sequence[Sequence[Transfer]]) -> list[Task]:
    """Rounds of transfers: a member begins its next one when it has sent and received what it had to in the one before."""
    tasks: list[Task] = []
    before: dict[int, list[int]] = {}
    for transfers in rounds:
        now: dict[int, list[int]] = {}
        for source, target, byte_count in transfers:
            after = (*before.get(source, ()), *before.get(target, ()))
            for member in (source, target):
                now.setdefault(member, []).append(len(tasks))
            tasks.append(Task(source, target, byte_count, tuple(dict.fromkeys(after))))
        before.update(now)
    return tasks

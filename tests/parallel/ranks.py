"""What the ranks do in the tests of this folder: `mpirun -n N python ranks.py CASE`. Each case is a function."""

from __future__ import annotations

import hashlib
import sys
import threading
import time

import numpy as np
import pytest

from paratrain.comm import Communicator, LocalCommunicator, TreeExchange, create_communicator
from paratrain.errors import CommunicationError, DataError
from paratrain.launch import abort
from paratrain.topology.planner import plan_ranks
from paratrain.topology.tree import chain, star
from tests.unit.comm.exchanges import MESSAGES, SHARED, make_exchange, run_step


def say(text: str) -> None:
    """One line in one piece: the ranks share the output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def exchange() -> None:
    """Sums in closed form, for many sizes and trees; prints a hash of a sum of random numbers."""
    communicator = create_communicator()
    rank, size = communicator.rank, communicator.size
    digest = hashlib.sha256()
    for tree in (plan_ranks(communicator.node_of_rank), chain(size), star(size)):
        for count in (0, 1, size - 1, size, size + 1, 1000, 300_001):
            for dtype in (np.float32, np.float64):
                pattern = np.arange(count, dtype=dtype) % 1000
                array = (rank + 1) * pattern
                tree_exchange = TreeExchange(communicator, tree, 256 * 1024 if count > 1000 else 64)
                tree_exchange.reduce(array)
                if rank == tree.root:
                    assert np.array_equal(array, size * (size + 1) // 2 * pattern)
                tree_exchange.broadcast(array)
                assert np.array_equal(array, size * (size + 1) // 2 * pattern)
                noise = np.random.default_rng([rank, count]).standard_normal(count).astype(dtype)
                tree_exchange.reduce(noise)
                tree_exchange.broadcast(noise)
                digest.update(noise.tobytes())
        mean = TreeExchange(communicator, tree).mean_scalars([rank, 0.5])
        if rank == tree.root:
            assert mean == [(size - 1) / 2, 0.5]
    say(f"{rank} of {size}: {digest.hexdigest()}")
    communicator.close()


def exchanges() -> None:
    """Every exchange, by messages and by shared memory: closed forms, and a hash of sums of random numbers."""
    communicator = create_communicator()
    rank, size = communicator.rank, communicator.size
    kinds = (*MESSAGES, *SHARED) if size == 1 else (*MESSAGES, *SHARED, "mpi")
    digests = {}
    for kind in kinds:
        digests[kind] = hashlib.sha256()
        for count in (0, 1, size - 1, size, size + 1, 1000, 3_000_001):
            step = 700 if count < 10_000 else 256 * 1024
            exchange = make_exchange(kind, communicator, count, step)
            pattern = (np.arange(count) % 1000).astype(np.float32)
            result = run_step(exchange, (rank + 1) * pattern)
            np.testing.assert_allclose(result, (size + 1) / 2 * pattern, rtol=2e-7)
            noise = np.random.default_rng([rank, count]).standard_normal(count).astype(np.float32)
            digests[kind].update(run_step(exchange, noise).tobytes())
            if "sharded" in kind and size > 1 and count < 10_000:  # fewer roots add in the same order
                fewer = make_exchange(kind, communicator, count, step, roots=size - 1)
                expected = make_exchange(kind, communicator, count, step)
                assert run_step(fewer, noise).tobytes() == run_step(expected, noise).tobytes()
    assert digests["tree"].digest() == digests["shared tree"].digest()
    assert digests["sharded"].digest() == digests["shared sharded"].digest()
    say(f"{rank} of {size}: {' '.join(digest.hexdigest() for digest in digests.values())}")
    communicator.close()


def objects() -> None:
    """Numbers, objects, barriers, order of messages, messages in pieces and of the wrong size."""
    communicator = create_communicator()
    rank, size = communicator.rank, communicator.size
    assert communicator.allgather_objects(("rank", rank)) == [("rank", r) for r in range(size)]
    assert communicator.gather_objects(rank, root=size - 1) == (list(range(size)) if rank == size - 1 else None)
    assert communicator.broadcast_object({"from": rank}, root=size - 1) == {"from": size - 1}
    assert communicator.node_of_rank == (0,) * size
    assert (communicator.local_rank, communicator.local_size) == (rank, size)
    started = time.monotonic()
    if rank == 0:
        time.sleep(0.3)
    communicator.barrier()
    assert rank == 0 or time.monotonic() - started > 0.1
    if size > 1:
        pieces(communicator)
        wrong_size(communicator)
        meanwhile(communicator)
    communicator.close()
    communicator.close()
    again = create_communicator()  # a second one in the same process
    assert again.allgather_objects(rank) == list(range(size))
    again.close()
    say(f"{rank} of {size}: {'local' if isinstance(again, LocalCommunicator) else 'mpi'}")


def pieces(communicator: Communicator) -> None:
    """A message larger than one MPI message may be, with that limit set to 1000 bytes."""
    from mpi4py import MPI

    from paratrain.comm.mpi import MpiCommunicator

    small = MpiCommunicator(MPI, MPI.COMM_WORLD, largest_message_bytes=1000)
    numbers = np.arange(12_345, dtype=np.float64)
    if small.rank == 0:
        first = small.isend(numbers, 1)
        second = small.isend(numbers[:3], 1)
        first.wait()
        second.wait()
    elif small.rank == 1:
        received, tail = np.empty_like(numbers), np.empty(3)
        small.receive(received, 0)
        small.receive(tail, 0)
        assert np.array_equal(received, numbers)
        assert np.array_equal(tail, numbers[:3])
    small.close()


def meanwhile(communicator: Communicator) -> None:
    """While a rank waits for a message, its jobs go on."""
    looks: list[int] = []
    if communicator.rank == 0:
        communicator.meanwhile = lambda: looks.append(0)
        communicator.receive(np.empty(1), 1)
        communicator.meanwhile = None
        assert looks
    elif communicator.rank == 1:
        time.sleep(0.1)
        communicator.send(np.zeros(1), 0)


def wrong_size(communicator: Communicator) -> None:
    """Too short and too long a message are both told."""
    for count in (9, 11):
        if communicator.rank == 0:
            communicator.send(np.zeros(count, np.float32), 1)
        elif communicator.rank == 1:
            with pytest.raises(CommunicationError, match=r"rank 1 of .*: receiving from rank 0 failed"):
                communicator.receive(np.zeros(10, np.float32), 0)
        communicator.barrier()


def dies(kind: str) -> None:
    """The last rank fails in the middle while the others wait for it."""
    communicator = abort.connect()
    abort.agree(communicator, None)
    last = communicator.size - 1
    with abort.guard(communicator):
        communicator.barrier()
        if communicator.rank == last:
            if kind == "exception":
                raise ZeroDivisionError("a bug on one rank")
            if kind == "user":
                raise DataError("record '00000007' is not a Datum")
            if kind == "interrupt":
                raise KeyboardInterrupt
            if kind == "exit":
                sys.exit(7)
        communicator.receive(np.empty(1), last)
    say("nobody gets here")


def all_fail() -> None:
    """Every rank meets the same bad record at about the same time."""
    communicator = abort.connect()
    with abort.guard(communicator):
        raise DataError("label 12 is out of range")


def bad_input(kind: str) -> None:
    """The set-up fails: everywhere alike, on some ranks, or with a bug."""
    communicator = abort.connect()
    error: BaseException | None = None
    if kind == "all":
        error = DataError("no such file: 'train_lmdb'")
    elif kind == "some" and communicator.rank > 0:
        error = DataError("no such file: '/local/train_lmdb'")
    elif kind == "bug" and communicator.rank == 1:
        try:
            raise IndexError("a bug in the set-up")
        except IndexError as caught:
            error = caught
    abort.agree(communicator, error)
    say("nobody gets here")


def script(kind: str) -> None:
    """A plain script with the hooks: the last rank fails, the others wait for it or for its end."""
    communicator = create_communicator()
    abort.install_excepthook(communicator)
    abort.install_excepthook(communicator)
    last = communicator.rank == communicator.size - 1
    if kind == "good":
        communicator.barrier()
        say("good")
        sys.exit(0)
    if last and kind == "exception":
        raise ZeroDivisionError("a bug in the script")
    if last and kind == "exit":
        sys.exit(5)
    if last and kind == "thread":
        worker = threading.Thread(target=lambda: {}["missing"], name="prefetch")
        worker.start()
        worker.join()
    if last and kind == "quiet thread":
        worker = threading.Thread(target=lambda: sys.exit(3))
        worker.start()
        worker.join()
        communicator.send(np.zeros(1), 0)
    if last and kind == "raised exit":
        raise SystemExit(4)  # which no hook can see
    if last and kind == "early end":
        sys.exit(0)
    if kind == "unhooked":  # as if nobody had installed the hooks
        sys.excepthook = sys.__excepthook__
        if last:
            raise ZeroDivisionError("nobody catches this")
    if communicator.rank == 0:
        communicator.receive(np.empty(1), communicator.size - 1)
        say("good")


CASES = {function.__name__: function for function in (exchange, exchanges, objects, dies, all_fail, bad_input, script)}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:])

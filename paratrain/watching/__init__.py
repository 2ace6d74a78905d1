"""Watching the ranks of a run: where each is, who waits for whom, who has died, and which host is lost.

Beside the ranks of each host runs one small process, the *helper*. It reads where its ranks are from memory that they share
with it (:mod:`~paratrain.watching.board`), sees at once when one dies, and tells the helper of rank 0's host, the *hub*, every
second. The hub decides (:mod:`~paratrain.watching.judge`): it warns of long waits, and ends the job with a report. A helper that
hears no more from the hub ends its own ranks. A process of its own can do so while the ranks are inside MPI or any other library,
are stopped, or have been killed by the launcher.

Helpers import nothing but Python's own library. Everything here is plain data: ranks, addresses, positions.
"""

"""Data parallel training: the room where a Solver meets the other ranks.

Each rank runs the same net on its own records. After every step the gradients of all ranks are averaged, whoever owns a
part of the parameters updates it, and the result goes to all. So n ranks of batch b take the steps of one rank of batch
n b, and there is one copy of the optimizer's state: on the root, as in Caffe's tree, or spread over the ranks. Parameters
are exchanged as one flat array, gradients as another, running statistics as a third.
"""

from paratrain.data_parallel.create import create_parallel_solver, exchanged_bytes
from paratrain.data_parallel.driver import DataParallel
from paratrain.data_parallel.ranks import TreeRanks, join_ranks, tree_by_places

__all__ = ["DataParallel", "TreeRanks", "create_parallel_solver", "exchanged_bytes", "join_ranks", "tree_by_places"]

"""Snapshots: the weights and the solver's state as Caffe's own files."""

from paratrain.snapshot.caffemodel import check_writable, load_weights, save_weights, split_weights
from paratrain.snapshot.solverstate import check_history, find_learned_net, load_history, read_state, write_state

__all__ = [
    "check_history",
    "check_writable",
    "find_learned_net",
    "load_history",
    "load_weights",
    "read_state",
    "save_weights",
    "split_weights",
    "write_state",
]

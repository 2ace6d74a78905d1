"""Snapshots: the weights and the solver's state as Caffe's own files, and beside them what resuming bit for bit needs."""

from paratrain.snapshot.caffemodel import check_writable, load_all_weights, load_weights, save_weights, split_weights
from paratrain.snapshot.carried import carries, copy_carried, put_carried
from paratrain.snapshot.copies import SnapshotCopy, copy_weights
from paratrain.snapshot.keeper import SnapshotKeeper
from paratrain.snapshot.names import training_name
from paratrain.snapshot.opening import OpenedSnapshot, open_snapshot
from paratrain.snapshot.positions import DataPlan, move_to, plan_data, positions, reopen
from paratrain.snapshot.retention import Metric, find_newest
from paratrain.snapshot.sizes import check_message_sizes, message_bytes
from paratrain.snapshot.solverstate import SavedState, check_history, load_history, shape_history
from paratrain.snapshot.training_state import BestScore, DataPosition, TrainingState, read_training_state

__all__ = [
    "BestScore",
    "DataPlan",
    "DataPosition",
    "Metric",
    "OpenedSnapshot",
    "SavedState",
    "SnapshotCopy",
    "SnapshotKeeper",
    "TrainingState",
    "carries",
    "check_history",
    "check_message_sizes",
    "check_writable",
    "copy_carried",
    "copy_weights",
    "find_newest",
    "load_all_weights",
    "load_history",
    "load_weights",
    "message_bytes",
    "move_to",
    "open_snapshot",
    "plan_data",
    "positions",
    "put_carried",
    "read_training_state",
    "reopen",
    "save_weights",
    "shape_history",
    "split_weights",
    "training_name",
]

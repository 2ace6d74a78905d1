"""The figures of a training run, for programs: JSON lines, tables in CSV, and event files of TensorBoard.

A solver tells a :class:`Sink` what it displays and scores, one record a call:

A displayed iteration gives ``iteration, loss, lr, images_per_s, data_s, forward_s, backward_s, exchange_s, update_s,
data_share, bad_records, train_outputs``, on several ranks also ``loss_min`` and ``loss_max``, between which ``loss``, the
mean, lies, and ``ranks``. ``train_outputs`` maps each output of the net, in the last pass of the iteration, to its mean over the
ranks. ``data_share`` is the share of the time, from 0 to 1, that the root rank waited for data; ``bad_records`` counts how often,
on all ranks and from the start of the run, another record took the place of one that cannot be used.

A test gives ``iteration, test_net, outputs``, where ``outputs`` maps each output to its mean (to a list, for outputs of several
values).

The ``_s`` figures are seconds of the root rank, summed over the iterations since the line before. ``exchange_s`` is all that it
spends on exchanging, also while backward goes on, and on waiting for slower ranks; ``backward_s`` is what is left of backward.
``ranks`` has the same five parts for each rank, as lists in the order of the ranks, from one displayed loss to the next: what a
rank does of an iteration after its loss is displayed, exchange and update, counts in the record that follows.

On several ranks ``exchange_predicted_s`` stands beside them: what the cost model (paratrain.topology.costs.training_step)
predicts for ``exchange_s + update_s`` of these iterations: gradients summed, parameters updated and brought to all ranks. It
does not know how long ranks wait for the slowest one, nor the small messages of a step, in which ranks agree on stops, losses
and statistics; and time on the network that backward hides is predicted, not measured.

``paratrain train`` adds records with one key beside ``time``: ``run``, what the run is, whenever it starts or goes on;
``warning``, what the log warns of; ``layers``, the seconds of each layer, forward and backward, on the root since it started.
A number that is not finite is null in JSON, which cannot express it, and ``nan`` or ``inf`` in CSV.
"""

from paratrain.metrics.csv_tables import CsvWriter
from paratrain.metrics.json_lines import MetricsWriter
from paratrain.metrics.layer_times import LayerTimes
from paratrain.metrics.several import SeveralWriters
from paratrain.metrics.sink import Figure, Sink
from paratrain.metrics.tensorboard import TensorBoardWriter

__all__ = ["CsvWriter", "Figure", "LayerTimes", "MetricsWriter", "SeveralWriters", "Sink", "TensorBoardWriter"]

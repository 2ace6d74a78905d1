"""Net: a network built from its description, run forward and backward."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from paratrain.errors import DeviceError, NetError
from paratrain.layers import Layer, LayerContext, create_layer
from paratrain.layers.fields import misplaced_fields
from paratrain.net import debug, device_errors, limits, report, weights
from paratrain.net.arrays import ArrayInterface
from paratrain.net.copying import CopyRules
from paratrain.net.fusion import Fusion
from paratrain.net.layer_callbacks import LayerCallbacks
from paratrain.net.memory_plan import MemoryPlan
from paratrain.net.parameters import Allocator, Parameters
from paratrain.net.recorded import RecordedPass
from paratrain.net.structure import Structure
from paratrain.net.wiring import LayerWiring, Wiring
from paratrain.proto import TRAIN, LayerParameter, NetParameter, NetState, ParamSpec, filter_net, insert_splits

__all__ = ["Net"]

logger = logging.getLogger(__name__)


def _quiet_overflow() -> np.errstate:
    """A net that diverges shows it in its loss; numpy's warnings from somewhere inside it would only be noise."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


class Net(ArrayInterface, Structure):
    """A network of one phase: layers in order, and the blobs between them.

    Building one follows Caffe's ``Net::Init``: keep the layers whose include and exclude rules fit the state, insert
    splits where a blob has several readers, then for each layer connect its blobs, set it up and enter its parameters;
    at last decide which layers need backward. The loss is the sum over all tops of loss_weight times the sum of the top.

    Learnable parameters of a TRAIN net lie in two flat arrays, which ``allocate`` makes (see Parameters). Raises NetError,
    and its subclasses, where the description cannot work; every message names the layer.
    """

    def __init__(
        self,
        parameter: NetParameter,
        context: LayerContext,
        *,
        level: int = 0,
        stages: Sequence[str] = (),
        allocate: Allocator | None = None,
    ) -> None:
        state = NetState()
        state.CopyFrom(parameter.state)
        state.phase = context.phase
        if level or not state.HasField("level"):
            state.level = level
        state.stage.extend(stage for stage in stages if stage not in state.stage)
        limits.check_layer_count(parameter)
        filtered = filter_net(parameter, state, report=logger.info)
        self.parameter = insert_splits(filtered)
        report.describe(logger, filtered, state)

        self.name = parameter.name
        self.context = context
        self.phase = context.phase
        self.layers: list[Layer] = []
        self.layer_names: list[str] = []
        self._names: set[str] = set()
        self.parameters = Parameters(context.dtype)
        self.debug_info = parameter.debug_info
        """Log the mean of every blob while the net runs; changed at any time."""
        self.layer_callbacks = LayerCallbacks()
        """What scripts have called around each layer."""
        self.after_layer_backward: Callable[[int], None] | None = None
        """Called with the number of each layer when backward has passed it: no gradient of its parameters is still to come."""
        self.data_s = 0.0
        """Seconds spent in data layers; whoever measures sets it back to 0."""
        self._wiring = Wiring(context.dtype)
        self._bottom_shapes: list[list[tuple[int, ...]]] = []
        self.memory_plan: MemoryPlan | None = None
        """Where blobs lie, if they share memory; their values then last only as long as layers need them."""
        self.recorded_pass: RecordedPass | None = None
        """What runs whole training passes as one, where the backend can record them."""
        self._is_forward_only = False
        self._tested: set[int] = set()  # layers whose last forward pass was within forward_only
        try:
            for layer_parameter in self.parameter.layer:
                self._add_layer(layer_parameter)
            self._wiring.prune_backward(self.layers)
            if self.parameter.force_backward:
                self._wiring.force_backward(self.layers)
            self._wiring.tell_layers(self.layers)
            self._fusion = Fusion(self.layers, self._wiring.layers)
            if context.plans_memory:
                self.plan_memory()
            if context.backend.can_record and context.phase == TRAIN and not context.keeps_arrays:
                self.recorded_pass = RecordedPass(self)
            if not context.shapes_only:
                limits.check_memory(self)
                if context.phase == TRAIN:
                    self.parameters.flatten(*([allocate] if allocate else []))
        except BaseException:
            self.close()
            raise
        report.finish(logger, self.output_names)

    def _add_layer(self, parameter: LayerParameter) -> None:
        if parameter.name in self._names:
            raise NetError(
                f"two layers are named '{parameter.name}'; weights are stored by layer name, so names must differ"
            )
        if not parameter.HasField("phase"):
            parameter.phase = self.phase
        if self.context.rank == self.context.deal[0] == 0 and not self.context.shapes_only:
            for misplaced in misplaced_fields(parameter):
                logger.warning("%s", misplaced)
        logger.info("Creating layer %s", parameter.name)
        layer = create_layer(parameter, self.context)
        logger.info("Creating Layer %s", parameter.name)
        wired = self._wiring.connect(parameter, layer)
        self.layers.append(layer)
        self.layer_names.append(parameter.name)
        self._names.add(parameter.name)
        try:
            layer.set_up(wired.bottoms, wired.tops)
        except NetError as error:
            raise layer.named(error) from error.__cause__
        self._bottom_shapes.append([blob.shape for blob in wired.bottoms])
        report.layer(logger, layer, wired.tops, self)
        self._add_parameters(parameter, layer, wired)

    def _add_parameters(self, parameter: LayerParameter, layer: Layer, wired: LayerWiring) -> None:
        if len(parameter.param) > len(layer.blobs):
            raise layer.error(
                f"'param' is given {len(parameter.param)} times, but the layer has {len(layer.blobs)} parameter blobs"
            )
        specs = [*parameter.param, *[ParamSpec() for _ in range(len(layer.blobs) - len(parameter.param))]]
        learns = [index not in layer.statistic_blobs and spec.lr_mult != 0 for index, spec in enumerate(specs)]
        layer.param_propagate_down = learns
        self._wiring.note_learning(wired, any(learns))
        for index, spec in enumerate(specs):
            self.parameters.append(layer, index, spec)

    # -- running -------------------------------------------------------------------------------------------------

    def forward_from_to(self, start: int = 0, end: int | None = None, *, backward_follows: bool = False) -> float:
        """Run layers ``start`` to ``end`` (included; the last where None) forward and return their part of the loss. Where
        ``backward_follows`` at once, arrays that scripts keep are brought up to date after that.
        """
        stop = len(self.layers) if end is None else end + 1
        if self.recorded_pass is not None:
            self.recorded_pass.forget()
        callbacks = self.layer_callbacks
        loss = 0.0
        with self._running(settles=not backward_follows or bool(callbacks)):
            self.begin_forward(start, stop)
            for index in range(start, stop):
                loss += callbacks.forward(self, index) if callbacks else self.forward_layer(index)
            self.context.backend.check_faults()
        return loss

    @contextmanager
    def _running(self, *, settles: bool = True) -> Iterator[None]:
        """A context in which layers run. Arrays that scripts keep show what these have made, also where one has failed."""
        with self.context.backend.alone(), _quiet_overflow():
            try:
                yield
            except BaseException:
                if self.context.keeps_arrays:
                    with suppress(Exception):  # what has failed first counts
                        self.settle_arrays()
                raise
            if self.context.keeps_arrays and settles:
                self.settle_arrays()

    def begin_forward(self, start: int, stop: int) -> None:
        """Layers ``start`` to ``stop`` (not included) are about to run forward."""
        if self.memory_plan is not None:
            with device_errors.telling_of_blobs(self):
                self.memory_plan.begin_forward(stop - start == len(self.layers))
        self._fusion.begin(start, stop, not (self.debug_info or self.layer_callbacks))

    def forward_layer(self, index: int) -> float:
        """Run one layer forward, after reshaping it if a bottom has changed its shape; return its part of the loss."""
        layer, wired = self.layers[index], self._wiring.layers[index]
        self.context.activity.enter("data" if layer.is_data else "forward", layer.name)
        (self._tested.add if self._is_forward_only else self._tested.discard)(index)
        begin = time.perf_counter() if layer.is_data else 0.0
        shapes = [blob.shape for blob in wired.bottoms]
        if shapes != self._bottom_shapes[index]:
            self._reshape_layer(index)
        try:
            layer.forward(wired.bottoms, wired.tops)
        except NetError as error:
            raise layer.named(error) from error.__cause__
        except (DeviceError, RuntimeError, MemoryError) as error:
            raise device_errors.named(error, self, index, "forward") or error from error.__cause__
        if layer.is_data:
            self.data_s += time.perf_counter() - begin
        if self.debug_info:
            debug.forward(self, index)
        return layer.loss(wired.tops)

    def backward_from_to(self, start: int | None = None, end: int = 0) -> None:
        """Run layers ``start`` (the last where None) down to ``end`` backward. Parameter gradients are added to."""
        first = len(self.layers) - 1 if start is None else start
        with self._running():
            self.begin_backward(first, end)
            for index in range(first, end - 1, -1):
                if self.layer_callbacks:
                    self.layer_callbacks.backward(self, index)
                else:
                    self.backward_layer(index)
                if self.after_layer_backward is not None:
                    self.after_layer_backward(index)
            if self.debug_info and start is None and end == 0:
                debug.whole_backward(self)
            if self.context.keeps_arrays:
                self.parameters.diff.settle(device=self.context.backend.device)

    def begin_backward(self, first: int, last: int) -> None:
        """Layers ``first`` down to ``last`` (included) are about to run backward."""
        if self.memory_plan is not None:
            with device_errors.telling_of_blobs(self):
                self.memory_plan.begin_backward(first - last + 1 == len(self.layers))
        self._fusion.begin_backward(first, last, not (self.debug_info or self.layer_callbacks))

    def backward_layer(self, index: int) -> None:
        """Run one layer backward, if it needs it. Raises LayerError after a forward pass within ``forward_only``."""
        wired = self._wiring.layers[index]
        if wired.needs_backward:
            if index in self._tested:
                raise self.layers[index].error(
                    "last ran in a test, which keeps nothing for backward; run forward first"
                )
            self.context.activity.enter("backward", self.layers[index].name)
            try:
                self.layers[index].backward(wired.tops, wired.propagate_down, wired.bottoms)
            except (DeviceError, RuntimeError, MemoryError) as error:
                raise device_errors.named(error, self, index, "backward") or error from error.__cause__
            if self.debug_info:
                debug.backward(self, index)

    @property
    def is_forward_only(self) -> bool:
        """Whether no backward pass follows: see :meth:`forward_only`."""
        return self._is_forward_only

    @contextmanager
    def forward_only(self) -> Iterator[None]:
        """A context in which no backward pass follows: layers that work in place keep no copy of what they overwrite."""
        self._is_forward_only = True
        for layer in self.layers:
            layer.needs_backward = False
        try:
            yield
        finally:
            self._is_forward_only = False
            self._wiring.tell_layers(self.layers)

    def plan_memory(self) -> None:
        """From now on let blobs share memory where they can: see MemoryPlan. Not in nets whose blobs somebody looks at later:
        those for Python, and with force_backward.
        """
        context = self.context
        if not (context.keeps_arrays or context.shapes_only or self.parameter.force_backward):
            self.memory_plan = MemoryPlan(self)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        self.parameters.clear_diffs()
        if self.context.keeps_arrays:
            with self.context.backend.alone():
                self.parameters.diff.settle(device=self.context.backend.device)

    def reshape(self) -> None:
        """Pass the shapes of the inputs through all layers; ``forward`` does it as well where a shape has changed."""
        with self.context.backend.alone():
            for index in range(len(self.layers)):
                self._reshape_layer(index)

    def _reshape_layer(self, index: int) -> None:
        layer, wired = self.layers[index], self._wiring.layers[index]
        if self.memory_plan is not None:
            self.memory_plan.dissolve()
        if self.recorded_pass is not None:
            self.recorded_pass.forget()
        try:
            layer.reshape(wired.bottoms, wired.tops)
            layer.set_loss_weights(wired.tops)
        except NetError as error:
            raise layer.named(error) from error.__cause__
        self._bottom_shapes[index] = [blob.shape for blob in wired.bottoms]

    def close(self) -> None:
        """Free the threads and files of data layers; the net must not be run any more."""
        for layer in self.layers:
            layer.close()

    # -- weights -------------------------------------------------------------------------------------------------

    def share_trained_layers_with(self, other: Net) -> None:
        """Use the parameters of equally named layers of ``other``, in its memory: when it learns, so does this one."""
        if self.recorded_pass is not None:
            self.recorded_pass.forget()
        weights.share(self, other)

    def copy_trained_layers_from(self, source: NetParameter, rules: CopyRules | None = None) -> None:
        """Copy the weights of equally named layers; layers of ``source`` that are not here are left out, with a log line.

        With ``rules`` the log has a table of what became of each layer.
        """
        weights.copy(self, source, rules)

    def to_proto(self, write_diff: bool = False) -> NetParameter:
        """Return the description of the net with its weights (and gradients, when asked): what a caffemodel holds."""
        return weights.to_proto(self, write_diff)

"""A stack's training step and evaluation in C++: pointers to its tensors, handed to step.cpp.

Shapes: K member, N of an epoch's order or a split, C class (or output), M measured quantity.

The tensors are those of the torch path: the model's parameters and buffers, and the state of its optimizers, so that a
checkpoint of one path is one of the other. Dropout's numbers are drawn here, from the members' own streams.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Mapping, Sequence
from ctypes import Structure, byref, c_double, c_int64, c_void_p
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainer.config import Config, Mlp, TorchOptimizer
from trainer.core.activations import PROBE_EXAMPLES, flat_part, tags
from trainer.core.dropout import StackedDropout
from trainer.core.mlp import StackedBatchNorm
from trainer.core.native import library

if TYPE_CHECKING:
    from trainer.core.data import Dataset
    from trainer.core.mlp import Mlp as Network
    from trainer.core.optimizers import MemberOptimizers, Span

BURST_FLOPS = 2e9  # of a call, some 20 ms of a core: so long a signal waits
BURST_NOISE = 2**25  # dropout's numbers that are drawn before it, 64 MB
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "silu")  # numbered as in layers.h
KINDS = {"SGD": 0, "Adam": 1, "AdamW": 1, "RMSprop": 2, "NAdam": 3}  # as in update.h
STATES = {  # names of torch's state, in the places m, v, x of update.h
    "SGD": ("momentum_buffer", None, None),
    "Adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "AdamW": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "RMSprop": ("momentum_buffer", "square_avg", "grad_avg"),
    "NAdam": ("exp_avg", "exp_avg_sq", None),
}


class _Dropout(Structure):
    _fields_ = [("noise", c_void_p), ("threshold", c_void_p), ("scale", c_void_p), ("stride", c_int64)]


class _Rule(Structure):
    _fields_ = [
        *[(name, c_int64) for name in ("kind", "start", "stop", "nesterov", "amsgrad", "centered", "decoupled")],
        *[(name, c_double) for name in ("lr", "momentum", "dampening", "beta1", "beta2", "alpha", "eps")],
        ("momentum_decay", c_double),
        *[(name, c_void_p) for name in ("decay", "state", "step", "mu_product")],
    ]


class _Network(Structure):
    _fields_ = [
        *[(name, c_int64) for name in ("members", "layers", "parameters")],
        ("sizes", c_void_p),
        *[(name, c_int64) for name in ("activation", "norm", "loss")],
        ("smoothing", c_double),
        *[(name, c_void_p) for name in ("x", "weights", "running", "batches_seen", "max_norm", "rows", "targets")],
        *[(name, c_int64) for name in ("order", "has_classes", "bits")],
    ]


class _Step(Structure):
    _fields_ = [
        ("number", c_double),
        *[(name, c_int64) for name in ("batches", "examples", "most")],
        *[(name, c_void_p) for name in ("edges", "drops", "measured", "moved", "rules")],
    ]


class _Flat(Structure):
    _fields_ = [("saturates", c_int64), ("middle", c_double), ("limit", c_double), ("share", c_double)]


class _Evaluation(Structure):
    _fields_ = [
        ("batch", c_int64),
        *[(name, c_void_p) for name in ("flat", "outputs", "measured")],
        ("threads", c_int64),
    ]


class NativeStep:
    """The step of a stack as it is: another one is made where its members, or the tensors it holds, change."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        network: Network,
        optimizers: MemberOptimizers,
        max_norm_K: Tensor | None,
        activations: Mapping[str, nn.Module],
    ) -> None:
        """config: of any member; activations: by name, what an evaluation looks at.

        Raises AssertionError for runs that `choice.served` gives to torch.
        """
        loaded = library.load()
        assert not isinstance(loaded, str)
        assert isinstance(config.model, Mlp)
        dtype = dataset.x.dtype
        self.take_steps, self.evaluation = loaded.trainer_steps, loaded.trainer_evaluate
        self.kept: list[object] = []  # what pointers point to
        self.sizes = [dataset.in_features, *config.model.widths, dataset.out_features]
        norms = [layer for layer in network.layers if isinstance(layer, StackedBatchNorm)]
        self.scores = ["loss", "accuracy"] if dataset.classes else ["loss"]
        self.seen = [tag for name, module in activations.items() for tag in tags(name, module)]
        self.seen += ["eval/top_class"] if dataset.classes else []
        self.flat = next((_Flat(*flat_part(module)) for module in activations.values()), _Flat())  # all are of one kind
        self.drops = _dropouts(network.layers, len(self.sizes) - 1)
        self.has_dropout = any(self.drops)
        parameters = list(network.stacked_parameters().values())
        assert all(p.is_contiguous() and p.dtype == dtype for p in parameters)
        examples = config.data.batch_size * config.accumulate * len(parameters[0])
        flops = 6 * examples * sum(map(operator.mul, self.sizes, self.sizes[1:]))
        noise = examples * sum(self.sizes[:-1]) if self.has_dropout else 1
        self.burst = max(1, int(min(BURST_FLOPS / flops, BURST_NOISE / noise)))  # steps in a call
        self.network = _Network(
            members=len(parameters[0]),
            layers=len(self.sizes) - 1,
            parameters=len(parameters),
            sizes=self._array(c_int64, self.sizes),
            activation=ACTIVATIONS.index(config.model.activation),
            norm=0 if not norms else 1 if config.model.batchnorm_position == "before" else 2,
            loss=1 if config.loss.name == "mse" or not dataset.classes else 0,
            smoothing=config.loss.label_smoothing,
            x=self._keep(dataset.x.contiguous()).data_ptr(),
            weights=self._pointers(parameters),
            running=self._pointers([t for norm in norms for t in (norm.running_mean, norm.running_var)]),
            batches_seen=self._pointers([norm.num_batches_tracked for norm in norms]),
            max_norm=None if max_norm_K is None else self._keep(max_norm_K.double()).data_ptr(),
            has_classes=bool(dataset.classes),
            bits=8 * dtype.itemsize,
        )
        self.optimizers, self.spans = optimizers, optimizers.spans
        self.rules = (_Rule * len(self.spans))(*[self._rule(span) for span in self.spans])
        self.moving = [  # whose learning rate may be another at each step
            (rule, span)
            for rule, span in zip(self.rules, self.spans, strict=True)
            if span.plateau is not None or not span.schedule.is_constant
        ]

    def __call__(
        self,
        done: int,
        rows_KN: Tensor,
        target_KN: Tensor,
        steps: Sequence[Sequence[slice]],
        measure: Sequence[bool],
        measured_SMK: Tensor,
        moved_3PK: Tensor | None,
    ) -> None:
        """Take the steps after `done` others, each of these batches.

        measured_SMK, moved_3PK (of the last of them): filled as `loop.train_steps` and `loop.watched_step` say.
        """
        self._look_at(rows_KN, target_KN)
        kept: list[object] = []  # what pointers point to
        every = [batch for batches in steps for batch in batches]
        edges_C = (c_int64 * (2 * len(every)))(*[edge for batch in every for edge in (batch.start, batch.stop)])
        noises = [one for batch in every for one in self._noises(batch.stop - batch.start)] if self.has_dropout else []
        drops_C = (_Dropout * len(noises))(*[drop for drop, _ in noises])
        edges, drops = ctypes.addressof(edges_C), ctypes.addressof(drops_C) if noises else None
        measured, size = measured_SMK.data_ptr(), measured_SMK[:1].nbytes
        moved = None if moved_3PK is None else moved_3PK.data_ptr()
        rules = ctypes.addressof(self.rules)
        steps_C = (_Step * len(steps))()
        for i, (batches, is_measured) in enumerate(zip(steps, measure, strict=True)):
            if self.moving:
                self._set_rates(done + i)
                kept.append(now := type(self.rules).from_buffer_copy(self.rules))
                rules = ctypes.addressof(now)
            sizes, to = [batch.stop - batch.start for batch in batches], measured if is_measured else None
            # in the order of its fields: by their names it would take as long as a layer's product
            steps_C[i] = done + i + 1, len(sizes), sum(sizes), max(sizes), edges, drops, to, moved, rules
            edges += 2 * ctypes.sizeof(c_int64) * len(sizes)
            measured += size if is_measured else 0
            if drops is not None:
                drops += len(self.drops) * ctypes.sizeof(_Dropout) * len(sizes)
        self.take_steps(byref(self.network), len(self.rules), steps_C, len(steps), torch.get_num_threads())

    def _set_rates(self, done: int) -> None:
        """Put into the rules the learning rates and momenta of the step after `done` others."""
        for rule, span in self.moving:
            rule.lr = span.learning_rate(done)
            if (momentum := span.schedule.momentum(done)) is not None:
                rule.momentum = rule.beta1 = momentum

    def evaluate(
        self, rows_KN: Tensor, target_KN: Tensor, look: bool, output_KNC: Tensor | None
    ) -> dict[str, list[float]]:
        """Return loss and accuracy (of classes) in evaluation mode, a number a member; fill outputs, where wanted.

        With `look`, also what activations and predictions are like on the first PROBE_EXAMPLES.
        """
        names = self.scores + self.seen if look else self.scores
        rows_KN, target_KN = rows_KN.contiguous(), target_KN.contiguous()
        self._look_at(rows_KN, target_KN)
        measured_MK = torch.empty(len(names), len(rows_KN), dtype=torch.float64)
        how = _Evaluation(  # in the order of its fields
            PROBE_EXAMPLES,
            ctypes.addressof(self.flat) if look else None,
            None if output_KNC is None else output_KNC.data_ptr(),
            measured_MK.data_ptr(),
            torch.get_num_threads(),
        )
        self.evaluation(byref(self.network), byref(how))
        return dict(zip(names, measured_MK.tolist(), strict=True))

    def _look_at(self, rows_KN: Tensor, target_KN: Tensor) -> None:
        """Point to rows of the data set and their targets, which the caller keeps."""
        self.network.rows, self.network.targets = rows_KN.data_ptr(), target_KN.data_ptr()
        self.network.order = rows_KN.shape[1]

    def _noises(self, B: int) -> list[tuple[_Dropout, Tensor | None]]:
        """The next numbers of every member's streams for a batch, layer by layer as a forward pass draws them.

        With each the tensor that it points into.
        """
        out: list[tuple[_Dropout, Tensor | None]] = []
        for dropout, features in zip(self.drops, self.sizes[:-1], strict=True):
            if dropout is None:
                out.append((_Dropout(), None))
                continue
            noise_Kn = dropout.noise.take(features * B)
            pointers = dropout.threshold.data_ptr(), dropout.scale.data_ptr()
            out.append((_Dropout(noise_Kn.data_ptr(), *pointers, noise_Kn.stride(0)), noise_Kn))
        return out

    def _rule(self, span: Span) -> _Rule:
        """An optimizer's settings as torch completed them, and its state, which is made as torch makes it."""
        config, group, state = span.config, span.groups[0], span.optimizer.state
        assert isinstance(config, TorchOptimizer)
        name, moving = config.name, span.schedule.momentum(0) is not None
        wanted = {
            "momentum_buffer": bool(group.get("momentum")) or (moving and "momentum" in group),
            "max_exp_avg_sq": group.get("amsgrad", False),
            "grad_avg": group.get("centered", False),
        }
        slots = [key if key and wanted.get(key, True) else None for key in STATES[name]]
        tensors: list[Tensor | None] = []
        for leaf in span.leaves:
            kept = state[leaf]
            if name != "SGD":
                kept.setdefault("step", torch.tensor(0.0))
            if name == "NAdam":
                kept.setdefault("mu_product", torch.tensor(1.0))
            tensors += [None if key is None else kept.setdefault(key, torch.zeros_like(leaf)) for key in slots]
        beta1, beta2 = group.get("betas", (0.0, 0.0))
        return _Rule(
            kind=KINDS[name],
            lr=span.learning_rate(0),
            start=span.start,
            stop=span.stop,
            **{key: bool(group.get(key)) for key in ("nesterov", "amsgrad", "centered")},
            decoupled=name == "AdamW" or bool(group.get("decoupled_weight_decay")),
            **{key: group.get(key, 0.0) for key in ("momentum", "dampening", "alpha", "eps", "momentum_decay")},
            beta1=beta1,
            beta2=beta2,
            decay=self._array(c_double, [config.weight_decay * d for d in self.optimizers.decays(config)]),
            state=self._pointers(tensors),
            step=None if name == "SGD" else self._pointers([state[leaf]["step"] for leaf in span.leaves]),
            mu_product=self._pointers([state[leaf].get("mu_product") for leaf in span.leaves]),
        )

    def _keep(self, tensor: Tensor) -> Tensor:
        self.kept.append(tensor)
        return tensor

    def _array(self, kind: type[c_int64] | type[c_double] | type[c_void_p], values: Sequence[object]) -> int:
        array = (kind * len(values))(*values)
        self.kept.append(array)
        return ctypes.addressof(array)

    def _pointers(self, tensors: Sequence[Tensor | None]) -> int:
        return self._array(c_void_p, [None if t is None else self._keep(t).data_ptr() for t in tensors])


def _dropouts(layers: nn.Sequential, linear: int) -> list[StackedDropout | None]:
    """The dropout before each linear layer, where there is one."""
    named = dict(layers.named_children())
    found = [named.get("drop_in"), *(named.get(f"drop{i}") for i in range(linear - 1))]
    return [layer if isinstance(layer, StackedDropout) else None for layer in found]

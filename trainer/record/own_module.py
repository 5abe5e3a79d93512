"""What curves do not show of a module of the user's own: found at the end of its training, by evaluating it again.

The trained module and a new instance that loaded its weights must agree, given the same random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import CellType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.config import ConfigError, CustomModel
from trainer.core import global_streams, networks
from trainer.core.own_module import UserModule
from trainer.core.stack import Stack
from trainer.judge.health import Finding

EXAMPLES = 64
TOLERANCE = 1e-4  # of the outputs' spread: far above rounding, far below what a layer does


@torch.no_grad()
def findings(stack: Stack) -> list[Finding]:
    """Return what is wrong with the module of a stack that has ended; for a network of ours nothing.

    No random stream moves; the module itself is no longer what it was.
    """
    if not (isinstance(stack.model, UserModule) and isinstance(stack.members[0].config.model, CustomModel)):
        return []
    with global_streams.kept(stack.device):
        found = list(_unregistered(stack.model.module))  # whose state no checkpoint holds either: said once
        found = found or list(_evaluated_again(stack, stack.model))
        found += _never_normalised(stack, stack.model.module)
        return [*found, *(list(_softmaxed(stack, stack.model)) or _squashed(stack, stack.model))]


def structure(stack: Stack) -> list[str]:
    """Return what is worth saying of a module of the user's own before it trains: layers that will not."""
    if not (isinstance(stack.model, UserModule) and isinstance(stack.members[0].config.model, CustomModel)):
        return []
    module, name = stack.model.module, type(stack.model.module).__name__
    out = [f"{name}: {one.where} will not train: {one.sentence}" for one in _unregistered(module)]
    numbers = {key: value.numel() for key, value in module.named_parameters()}
    frozen = [key for key, value in module.named_parameters() if not value.requires_grad]
    if frozen:
        share = f"{sum(numbers[key] for key in frozen):,} of {sum(numbers.values()):,} numbers"
        out.append(f"{name}: {', '.join(frozen)} will not train, as requires_grad=False says ({share})")
    return out


def shared(stack: Stack) -> list[str]:
    """Return what is worth saying once a module of the user's own has trained a little: layers used several times."""
    if not isinstance(stack.model, UserModule):
        return []
    names = [name for name, uses in stack.activations.uses.items() if uses > 1]
    why = "used more than once in a forward pass, with the same weights each time (a slip, unless it is meant so)"
    return [f"{type(stack.model.module).__name__}: {', '.join(names)}: {why}"] if names else []


def _unregistered(module: nn.Module) -> Iterator[Finding]:
    """Layers and weights in a Python list or dictionary, or in a function."""
    known = {id(one) for one in (*module.modules(), *module.parameters())}
    names = [name for name, value in _hidden(module) if id(value) not in known]
    if names:
        said = "what stands there is in a list, tuple, dictionary or function of Python's, so PyTorch does not see it"
        yield Finding("unregistered_layers", ", ".join(names), 0, said, {"names": names})


def _hidden(module: nn.Module) -> Iterator[tuple[str, object]]:
    """(name, value) of modules and trainable tensors in plain attributes of any part of a module."""
    for prefix, part in module.named_modules():
        for attribute, value in vars(part).items():
            if not attribute.startswith("_"):
                yield from _trainable(f"{prefix}.{attribute}".lstrip("."), value)


def _trainable(name: str, value: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    items: list[tuple[Any, object]] = []
    if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.is_leaf and value.requires_grad):
        yield name, value
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    elif isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        items = [(key, cell.cell_contents) for key, cell in cells if key != "self" and cell != CellType()]
    for key, item in items if depth < 3 else []:
        yield from _trainable(f"{name}[{key}]", item, depth + 1)


def _evaluated_again(stack: Stack, network: UserModule) -> Iterator[Finding]:
    """Random evaluation; and state that training changed, and no checkpoint holds."""
    x = _examples(stack)
    first, before = _outputs(network, x, seed=0), _attributes(network.module)
    if _differ(first, _outputs(network, x, seed=0)):
        said = "two evaluations of the same weights on the same examples, with the same random numbers, disagree"
        yield _unsaved(before, _attributes(network.module), f"{said}: forward changes something")
        return
    if _differ(first, _outputs(network, x, seed=1)):
        said = "with other random numbers, the same weights give other outputs in evaluation mode"
        yield Finding("random_evaluation", "", 0, said, {})
    config = stack.members[0].config
    try:  # from another start, so that what the checkpoint does not hold is another
        loaded = networks.stacked([replace(config, seed=config.seed ^ 1)], stack.dataset)
        assert isinstance(loaded, UserModule)
        loaded.load_member_state(0, network.member_state(0))
        trained, new = _attributes(network.module), _attributes(loaded.module)
        modes = [mode for mode in (False, True) if _differ(*(_outputs(n, x, 0, mode) for n in (network, loaded)))]
    except (ConfigError, KeyError, RuntimeError):
        said = "its last weights cannot be loaded into a new instance"
        yield Finding("unsaved_state", "", 0, said, {})
        return
    if modes:
        said = f"loaded into a new instance, its last weights give other outputs in {_MODES[modes[0]]} mode"
        yield _unsaved(trained, new, f"{said}: forward uses what no state_dict holds")


_MODES = {False: "evaluation", True: "training"}


def _unsaved(a: dict[str, Any], b: dict[str, Any], said: str) -> Finding:
    """Name the attributes that may be what is lost: those that differ."""
    names = [name for name, value in a.items() if name not in b or not _equal(value, b[name])]
    return Finding("unsaved_state", ", ".join(names), 0, said, {"attributes": names})


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Numbers, tensors and arrays in plain attributes of any part of a module, by name; as they are now."""
    out = {}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, float | int | Tensor | np.ndarray) and name != "training" and name[0] != "_":
                out[f"{prefix}.{name}".lstrip(".")] = np.array(
                    value.detach().cpu() if isinstance(value, Tensor) else value
                )
    return out


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


FLOOR = 0.05  # of the loss of guessing: one that is lower does no harm


def _softmaxed(stack: Stack, network: UserModule) -> Iterator[Finding]:
    """Probabilities, where cross-entropy wants logits: the loss cannot fall below that of a one and zeros."""
    classes = stack.classes
    is_cross_entropy = stack.loss._target_ is None and stack.loss.name in ("auto", "cross_entropy")
    if classes is None or classes < 2 or not is_cross_entropy:
        return
    y = _outputs(network, _examples(stack), seed=0)
    total = y.sum(1).mean().item()
    floor = math.log1p((classes - 1) * math.exp(-total)) if total > 0 else 0.0
    add_up = (y >= 0).all() and ((y.sum(1) - total).abs() < 1e-3 * total).all()
    if bool(add_up) and floor > FLOOR * math.log(classes):
        times = "" if abs(total - 1) < 1e-3 else f"{total:.3g} times "
        said = f"the outputs are {times}probabilities, whose cross-entropy cannot fall below {floor:.4g}"
        yield Finding("softmax_twice", "outputs", 0, said, {"floor": floor})


def _never_normalised(stack: Stack, module: nn.Module) -> Iterator[Finding]:
    """Batch norm that was in evaluation mode in every step: its statistics are those it was made with."""
    norms = [(name, part) for name, part in module.named_modules() if isinstance(part, _BatchNorm)]
    names = [name for name, part in norms if part.num_batches_tracked is not None and part.num_batches_tracked == 0]
    if names and stack.step:
        said = "batch norm that saw no batch in training mode hands its input on as it is"
        yield Finding("norm_without_statistics", ", ".join(names), 0, said, {"names": names})


FAR = 1000.0  # times the inputs: an output without bounds grows
AT_BOUND = (0.01, 0.5)  # so near to a bound lie this many of the outputs
ZEROS = 0.1  # of outputs that are never below 0


def _squashed(stack: Stack, network: UserModule) -> Iterator[Finding]:
    """Outputs that end in sigmoid, tanh or ReLU, where the loss wants any number, or targets lie beyond."""
    if stack.loss._target_ is not None or stack.loss.name == "output" or (stack.classes and stack.loss.name == "mse"):
        return
    x = _examples(stack)
    y, far = _outputs(network, x, seed=0), _outputs(network, FAR * x, seed=0)
    lowest, highest = torch.cat([y, far]).aminmax()
    near, most = AT_BOUND
    for name, low, high in (("sigmoid", 0.0, 1.0), ("tanh", -1.0, 1.0), ("ReLU", 0.0, math.inf)):
        if high < math.inf:
            ends = ((far - low < near) | (high - far < near)).double().mean() >= most
        else:
            ends = (y == 0).double().mean() >= ZEROS and highest > 0
        target = stack.train_y_KN
        beyond = stack.classes is not None or bool(((target < low) | (target > high)).any())
        if ends and beyond and lowest >= low and highest <= high:
            said = f"the outputs seem to end in {name}: no input looked at brings them below {low:g} or above {high:g}"
            said = said.removesuffix(" or above inf")
            yield Finding("squashed_outputs", "outputs", 0, said, {"low": low, "high": high})
            return


def _examples(stack: Stack) -> Tensor:
    """(1, B, I) of the training split."""
    return stack.gather(stack.train_KN[:1, :EXAMPLES])


def _outputs(network: UserModule, x: Tensor, seed: int, training: bool = False) -> Tensor:
    """(1, B, I) -> (B, O), with all global generators started from this seed."""
    global_streams.seed(seed)
    network.train(training)
    return network(x)[0].double()


def _differ(a: Tensor, b: Tensor) -> bool:
    spread = max((a - a.mean()).nan_to_num(0, 0, 0).abs().max().item(), 1e-12)
    return not torch.allclose(a, b, rtol=0, atol=TOLERANCE * spread, equal_nan=True)

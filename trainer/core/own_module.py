"""A network of the user's own: found by its dotted path, built under the run's streams, trained as a stack of one.

Shapes: B example, I in-feature, O out-feature.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from trainer import config as cfg
from trainer.config import ConfigError
from trainer.core import global_streams
from trainer.core.own_calls import check_arguments, find_target, in_words, parameters, place
from trainer.core.seeds import stream_seed

TORCHVISION = "torchvision.models."  # its functions hand num_classes on, which their signatures do not show


class UserModule(nn.Module):
    """A stack of one: any module of the user's own, (1, B, I) -> (1, B, O).

    Its parameters get the leading member axis, its buffers stay as they are; its forward sees a batch of examples in
    their own shape, (B, *shape).
    """

    def __init__(self, module: nn.Module, shape: tuple[int, ...], out_features: int) -> None:
        """out_features: what the module must give for each example."""
        super().__init__()
        self.shape = shape
        self.out_features = out_features
        self.module = module
        self.where = _forward(module)
        stacked: dict[nn.Parameter, nn.Parameter] = {}  # one for one: parameters that are tied stay tied
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    if parameter not in stacked:
                        value = parameter.detach()[None].contiguous()
                        stacked[parameter] = nn.Parameter(value, parameter.requires_grad)
                    part._parameters[name] = stacked[parameter]

        self.shapes = {name: value.shape for name, value in module.named_parameters()}

    def forward(self, x: Tensor) -> Tensor:
        """(1, B, I) -> (1, B, O). Raises ConfigError where the module fails, or is another afterwards."""
        parameters = {name: value[0] for name, value in self.module.named_parameters()}
        y = outputs(self.module, x[0].view(-1, *self.shape), self.out_features, parameters)[None]
        now = {name: value.shape for name, value in self.module.named_parameters()}
        if changed := [name for name in {**self.shapes, **now} if self.shapes.get(name) != now.get(name)]:
            why = f"forward of {type(self.module).__name__} adds or removes parameters, which only __init__ may do"
            raise ConfigError([f"model._target_: {why}: {', '.join(changed)}{self.where}"])
        return y

    def gradients(self, loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Return the derivative of a loss by each of the stacked parameters; None where it does not depend on it.

        Raises ConfigError where backward fails.
        """
        hints = {"modified by an inplace operation": f"write y = y + 1 for y += 1 in forward{self.where}"}
        found: Sequence[Tensor | None] = ()
        if loss.requires_grad:
            with in_words("model._target_: the backward pass fails", hints=hints):
                found = torch.autograd.grad(loss, parameters, allow_unused=True)
        if all(gradient is None for gradient in found):
            why = "no parameter takes part in the loss; is there a detach or no_grad in forward?"
            raise ConfigError([f"model._target_: {why}{self.where}"])
        return found

    def stacked_parameters(self) -> dict[str, nn.Parameter]:
        """Every trainable parameter by the module's own name for it."""
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def member_state(self, k: int) -> dict[str, Tensor]:
        """The module's own state dict (copies, on the CPU)."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self._own_state(k).items()}

    def member_states(self) -> Callable[[int], dict[str, Tensor]]:
        return self.member_state

    def load_member_state(self, k: int, state: dict[str, Tensor]) -> None:
        """Put a state that member_state gave back into the module."""
        for name, value in self._own_state(k).items():
            value.copy_(state[name])

    def _own_state(self, k: int) -> dict[str, Tensor]:
        """The module's state dict without the member axis, as views."""
        parameters = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}
        return {name: value[k] if name in parameters else value for name, value in self.module.state_dict().items()}

    def predictor(self, state: dict[str, Tensor]) -> nn.Module:
        """Give the module the weights of `state`, and return it in evaluation mode: (B, I) -> (B, O)."""
        self.load_member_state(0, state)
        return _Unstacked(self).eval()

    def readings(self) -> dict[str, Tensor]:
        return {}

    def select(self, members: Sequence[int]) -> None:
        assert list(members) == [0]


def outputs(
    module: nn.Module, examples: Tensor, out_features: int, parameters: dict[str, Tensor] | None = None
) -> Tensor:
    """What a module, or the module with these parameters instead of its own, gives for examples (B, ...): (B, O).

    Another floating type becomes that of the examples. Raises ConfigError where it fails, or gives anything else.
    """
    name = type(module).__name__
    hint = "batch norm wants two examples a batch, try data.drop_last=true or another data.batch_size"
    with in_words(
        f"model._target_: {name} fails on inputs of shape {tuple(examples.shape)}",
        hints={"more than 1 value per channel": hint},
    ):
        y = module(examples) if parameters is None else functional_call(module, parameters, (examples,))
    if not isinstance(y, Tensor) or y.shape != (len(examples), out_features):
        found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        what = f"a tensor ({len(examples)}, {out_features}): one row per example, one column per class or output"
        raise ConfigError([f"model._target_: the output of {name} is {found}, expected {what}{_forward(module)}"])
    if not y.is_floating_point() or y.device != examples.device:
        found, what = (f"{tensor.dtype} on {tensor.device}".removeprefix("torch.") for tensor in (y, examples))
        like = f"like its input{_forward(module)}"
        raise ConfigError([f"model._target_: the output of {name} is {found}, expected {what}, {like}"])
    return y.to(examples.dtype)


def _forward(module: nn.Module) -> str:
    return place(type(module).forward)


class _Unstacked(nn.Module):
    """A stack of one without its member axis: (B, I) -> (B, O)."""

    def __init__(self, stack: UserModule) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x[None])[0]


def build(
    config: cfg.CustomModel,
    shape: Sequence[int],
    out_features: int,
    seed: int,
    target: Callable[..., object] | None = None,
) -> nn.Module:
    """The user's own module for examples of a shape, initialised under the run's init stream.

    target: what makes it, where that is found already. All global generators draw from that stream until it is built,
    then from the dropout stream. Raises ConfigError where the class cannot be found or built.
    """
    global_streams.seed(stream_seed(seed, "import"))
    target = target or find_target("model._target_", config._target_)
    arguments = dict(config.arguments)
    check_arguments("model", target, arguments)
    known = {*parameters(target), *(("num_classes",) if config._target_.startswith(TORCHVISION) else ())}
    filled = {"in_features": math.prod(shape), "out_features": out_features, "num_classes": out_features}
    arguments |= {key: value for key, value in filled.items() if key in known and key not in arguments}
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    global_streams.seed(stream_seed(seed, "init"))
    with in_words(f"model: {config._target_}({given}) fails"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torchvision")  # of defaults to come
        module = target(**arguments)
    if not isinstance(module, nn.Module):
        raise ConfigError(
            [f"model._target_: {config._target_} gives {type(module).__name__}, expected torch.nn.Module"]
        )
    if sparse := [name for name, part in module.named_modules() if getattr(part, "sparse", False) is True]:
        why = "gradients are sparse, and no optimizer or norm here takes those; leave out sparse=True"
        raise ConfigError([f"model._target_: {', '.join(sparse)} of {config._target_}: {why}"])
    if config._target_.startswith(TORCHVISION) and len(shape) == 3 and shape[0] == 1:
        module.register_forward_pre_hook(_three_colours)
    _initialise_lazy(module, shape, out_features)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError([f"model._target_: {config._target_} has no parameters to train"])
    global_streams.seed(stream_seed(seed, "dropout"))
    return module


def _three_colours(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """Give a network of torchvision, whose first layer wants three colours, a grey picture (B, 1, H, W) as each."""
    return inputs[0].expand(-1, 3, -1, -1)


@torch.no_grad()
def _initialise_lazy(module: nn.Module, shape: Sequence[int], out_features: int) -> None:
    """Give parameters that wait for their shape one, by two examples of nothing. Raises ConfigError where it fails."""

    def waiting() -> list[str]:
        return [name for name, value in (*module.named_parameters(), *module.named_buffers()) if is_lazy(value)]

    if waiting():
        module.eval()
        outputs(module, torch.zeros(2, *shape), out_features)
        module.train()
    if left := waiting():
        raise ConfigError([f"model._target_: {', '.join(left)} of {type(module).__name__} is never used in forward"])

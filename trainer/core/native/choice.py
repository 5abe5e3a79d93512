"""The one place that decides which step trains a run: the native one, or torch's, on a GPU as CUDA graphs. No torch is
imported to ask.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.config import Cnn, Config, ConfigError, Mlp, TorchOptimizer
from trainer.core.native import library

OPTIMIZERS = {  # class of torch.optim -> arguments beyond the named ones that the native step knows
    "SGD": set[str](),
    "Adam": set[str](),
    "AdamW": set[str](),
    "RMSprop": {"centered"},
    "NAdam": {"momentum_decay", "decoupled_weight_decay"},
}
LOSSES = {"auto", "cross_entropy", "mse"}


def not_native(config: Config) -> str | None:
    """What in a configuration the native step does not serve; None where it serves all of it."""
    model, optimizer, loss = config.model, config.optimizer, config.loss
    if not isinstance(model, Mlp):
        return "the model is no mlp"
    if loss._target_ is not None or loss.name not in LOSSES:
        return f"the loss is {loss._target_ or loss.name}, not one of {', '.join(sorted(LOSSES))}"
    if not isinstance(optimizer, TorchOptimizer) or optimizer.name not in OPTIMIZERS:
        return f"the optimizer is {optimizer.name}, not one of {', '.join(OPTIMIZERS)}"
    if others := sorted(set(optimizer.arguments) - OPTIMIZERS[optimizer.name]):
        return f"the optimizer has the argument {others[0]}"
    return None


def can_be_graphed(config: Config) -> bool:
    """Whether CUDA graphs can hold the step: code of the user's own may wait for the GPU, or decide by what it says."""
    return isinstance(config.model, Mlp | Cnn) and config.loss._target_ is None


def may_be_native(config: Config) -> bool:
    """Whether the native step trains a run where it is built."""
    return config.step != "torch" and config.device in ("auto", "cpu") and not_native(config) is None


def not_here() -> str | None:
    """Why this machine has no native step, and what to do about it; None where it has one."""
    found = library.load()
    return f"it {found}; type pip install -e . where a C++ compiler is" if isinstance(found, str) else None


def note(configs: Sequence[Config]) -> str | None:
    """What to tell once, where torch trains runs that the native step would train several times faster."""
    waiting = any(c.step == "auto" and may_be_native(c) for c in configs)
    return f"torch trains; the native step is faster: {why}" if waiting and (why := not_here()) else None


def served(configs: Sequence[Config], device: str) -> str:
    """Which step trains a stack of these runs, whose `step` is one, on a device: native, graph (torch's) or torch.

    Raises ConfigError where step=native is wanted and cannot be had.
    """
    step = configs[0].step
    if step == "torch":
        return "torch"
    why = next((said for config in configs if (said := not_native(config))), None)
    why = why or (None if device == "cpu" else f"the device is {device}")
    why = why or not_here()
    if why is not None and step == "native":
        raise ConfigError([f"step: native cannot serve this run: {why}; or try step=auto"])
    if device == "cuda" and all(map(can_be_graphed, configs)):
        return "graph"
    return "torch" if why else "native"

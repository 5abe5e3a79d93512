"""What keys and values of a configuration mean, however they are written: learning-rate, learningRate, optimizer_lr."""

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

CLASS = "._target_"
NO_KNOB = "run"  # the difference between runs without a configuration
CHOICE = {"target", "name", "type", "class", "cls", "kind"}  # what says which of a group's classes is used

_SEEDS = {"random_state", "rng", "fold", "cv_fold", "replicate", "repetition", "repeat", "rep", "trial", "run_idx"}
_RATES = {"lr", "lr0", "learning_rate", "learningrate"}
_OTHER_RATES = {"min", "end", "final", "warmup"}  # rates that a schedule has beside the one that is tuned
_OPTIMIZERS = {"optimizer", "optimiser", "optim", "opt"}
_RIVALS = _OPTIMIZERS | {"schedule", "scheduler", "sched", "batch", "batchsize", "bs"}
_BESIDE_A_RIVAL = CHOICE | {"lr", "learning", "rate", "size", "train", "training", "per", "device", "global"}
_LOSSES = {"loss", "lossfn", "criterion", "objective", "reduction", "smoothing", "smooth", "focal", "huber"}
_SHARES = {"dropout", "drop", "keep", "mask", "ratio", "fraction", "share", "split", "prob", "probability", "p"}
_SHARES |= {"momentum", "beta", "betas", "ema", "noise", "smoothing"}
_SCALES = {"normalize", "normalise", "standardize", "standardise", "scale", "scaling", "scaler"}
_DATA = {"data", "dataset", "datasets", "datamodule", "data_set", "corpus", "task"}
_DATA |= {"dataset_name", "data_name", "task_name"}
_DATA_PARTS = {"name", "target", "path", "dataset"}
_CONDITIONS = {"label_noise", "train_size", "n_train", "num_samples"}
_EPOCH_LENGTHS = {"train_size", "n_train", "batch_size", "train_batch_size", "per_device_train_batch_size"}
_EPOCHS = {"epochs", "max_epochs", "num_epochs", "n_epochs", "num_train_epochs", "total_epochs"}
_ENDS = {"patience", "early", "earlystopping"}  # words of what may end a run before its epochs, as do
_LIMITS = {"max_steps", "max_time"}  # limits of something else
_SLOWS = {"schedule", "scheduler", "sched", "plateau", "lr"}  # words of what lowers a learning rate instead
_OFF = {"none", "null", "false", "", "0"}
_PLACES = {  # where, when and with which means a run was made: they change nothing of what it learns
    "host", "hostname", "node", "port", "master_port", "pid", "rank", "local_rank", "gpu", "gpus", "gpu_id", "gpu_ids",
    "device_id", "cuda_visible_devices", "num_workers", "n_workers", "workers", "user", "username", "url", "uri",
}  # fmt: skip
_LABELS = {
    "run_id", "trial_id", "job_id", "exp_id", "experiment_id", "run_name", "exp_name", "experiment_name", "trial_name",
    "job_name", "display_name", "notes", "description", "timestamp", "start_time", "started_at", "created_at",
    "runtime", "wall_time", "logdir", "uuid", "n_params", "num_params", "num_parameters", "n_parameters",
    "total_params", "trainable_params", "steps_per_epoch", "num_batches", "num_training_steps", "total_steps",
}  # fmt: skip
_LABELS_OF_RUNS = {"name", "id", "version", "tag", "tags", "group", "time", "date", "output", "out", "path", "dir"}
_LABELS_OF_RUNS |= {"run", "exp", "experiment"}
_OF_RUNS = {"", "run", "runs", "experiment", "exp", "wandb", "logger", "logging", "mlflow", "trainer", "job"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@functools.lru_cache(100_000)
def words(key: str) -> tuple[str, ...]:
    """Return the words of a key's last part: ("learning", "rate")."""
    return tuple(word.lower() for word in _WORD.findall(key.rpartition(".")[2]))


def _name(key: str) -> str:
    return "_".join(words(key))


def parent(key: str) -> str:
    """Return the group that a key chooses the class of, "optimizer" of optimizer.type; of any other, the key itself."""
    head, _, _ = key.rpartition(".")
    return head if head and _name(key) in CHOICE else key


def is_seed(key: str) -> bool:
    """Whether a key only repeats a run: its seed, fold or repetition."""
    return _name(key) in _SEEDS or not {"seed", "seeds"}.isdisjoint(words(key))


def seed_of(config: Mapping[str, Any]) -> Any:
    """Return the seed of a configuration, of several seeds all; None where there is none."""
    found = {key: config[key] for key in sorted(config) if is_seed(key)}
    values = [value for value in found.values() if value is not None]
    return None if not values else values[0] if len(values) == 1 else json.dumps([hashable(one) for one in values])


def is_rate(key: str) -> bool:
    """Whether a key is the learning rate."""
    name, found = _name(key), words(key)
    is_named = name in _RATES or name.endswith(("_lr", "learning_rate")) or name in ("lr_init", "lr_max")
    return is_named and _OTHER_RATES.isdisjoint(found)


def needs_a_rate(key: str) -> bool:
    """Whether what a key chooses needs a learning rate of its own: the optimizer, the schedule, the batch size."""
    found = set(words(parent(key)))
    return not _RIVALS.isdisjoint(found) and found <= _RIVALS | _BESIDE_A_RIVAL


def is_optimizer(key: str) -> bool:
    """Whether a key chooses the optimizer."""
    return needs_a_rate(key) and not _OPTIMIZERS.isdisjoint(words(parent(key)))


def is_condition(key: str) -> bool:
    """Whether a key says what the data are: a question is asked under it, and nobody chooses it for a lower loss."""
    return is_data(key) or key.rpartition(".")[2] in _CONDITIONS


def is_epoch_length(key: str) -> bool:
    """Whether a key changes how many steps an epoch has."""
    return _name(key) in _EPOCH_LENGTHS


def defines_loss(key: str) -> bool:
    """Whether losses at different values of a key are different quantities."""
    found = {word for part in key.split(".") for word in words(part)}
    is_scale = not (_SCALES.isdisjoint(found) or found.isdisjoint({"target", "targets", "label", "labels"}))
    is_weight = not found.isdisjoint({"class", "pos"}) and not found.isdisjoint({"weight", "weights"})
    return not _LOSSES.isdisjoint(found) or is_weight or is_scale


def is_share(key: str) -> bool:
    """Whether a key's values are shares or probabilities, of 1 at most, where none of them is larger."""
    return not _SHARES.isdisjoint(words(key))


def is_data(key: str) -> bool:
    """Whether a key names the data set."""
    name, (first, *rest) = _name(key), key.lower().split(".")
    return name in _DATA or (first in ("data", "dataset") and len(rest) == 1 and name in _DATA_PARTS)


def is_epochs(key: str) -> bool:
    """Whether a key is the number of epochs."""
    return _name(key) in _EPOCHS


def may_end_early(key: str, value: Any) -> bool:
    """Whether a setting may end a run before its epochs: early stopping, or a limit of steps or time."""
    lowers_rates = any(not _SLOWS.isdisjoint(words(part)) for part in key.split("."))
    is_named = (not _ENDS.isdisjoint(words(key)) and not lowers_rates) or _name(key) in _LIMITS
    text = str(value).lower()
    return (is_named and text not in _OFF and not text.startswith("-")) or "earlystopping" in text.replace("_", "")


def is_place(key: str) -> bool:
    """Whether a key says where or by which means a run was made."""
    return _name(key) in _PLACES


def is_label(key: str) -> bool:
    """Whether a key may only name a run, or count what follows from its other keys."""
    name, of = _name(key), key.rpartition(".")[0].rpartition(".")[2].lower()
    return name in _LABELS or name.endswith(("_dir", "_path")) or (name in _LABELS_OF_RUNS and of in _OF_RUNS)


# ------------------------------------------------------------------ values

ABSENT = "\0absent"  # the level of a key that a run does not have: no value of it


def hashable(value: Any) -> Any:
    """Turn a config value into one that can be compared and hashed: lists and dicts into JSON, True into no 1."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return json.dumps(value, sort_keys=True, default=str)


def alike(column: Sequence[Any]) -> list[Any]:
    """Return a key's values as one kind: numbers, and true and false, that some tool wrote as text are no text."""
    column = [value.lower() if str(value).lower() in ("true", "false") else value for value in column]
    texts = {value for value in column if isinstance(value, str)} - {ABSENT}
    written = {text: _number(text) for text in texts if text.lower() not in ("none", "null")}
    if not written or None in written.values():
        return column
    return [written.get(value) if value in texts else value for value in column]


def _number(text: str) -> float | int | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return None if not math.isfinite(found) else int(found) if re.fullmatch(r"[+-]?\d+", text) else found


def natural(value: Any) -> tuple[int, float, str]:
    """Return a sort key for values of mixed types: None, then numbers by size, then text."""
    if value is None or value == ABSENT:
        return 0, 0.0, ""
    return (1, float(value), "") if isinstance(value, (int, float)) else (2, 0.0, str(value))


def label(value: Any) -> str:
    """Write a value as the command line would have it."""
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

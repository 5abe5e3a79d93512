"""What can be configured: every key's name, help, unit and range; `conf/` holds the values. Imports nothing of ours.

`from_dict` checks a composed configuration against these dataclasses and lists *all* problems at once.
"""
# ruff: noqa: F401 (others import these from here)

from trainer.config.contradictions import task_problems
from trainer.config.data import (
    Arrays,
    CustomData,
    Data,
    Folder,
    Generated,
    Normalisation,
    ReadData,
    SklearnData,
    Table,
    Task,
    TorchvisionData,
)
from trainer.config.knob import ConfigError, knob, to_dict
from trainer.config.model import Activation, Cnn, CustomModel, Function, Init, Mlp, Pooling, Surface, model_class
from trainer.config.optimizer import (
    SCHEDULE_KEYS,
    CustomOptimizer,
    CustomSchedule,
    NamedSchedule,
    Optimizer,
    Schedule,
    ScheduleName,
    TorchOptimizer,
)
from trainer.config.reading import MISSING, from_dict, group_class, homes, no_such_key, problems_of
from trainer.config.schema import Checkpoint, Config, Loss, Record
from trainer.config.words import closest, expected, is_union, nearest

"""TensorBoard's HParams table of recorded runs, as TensorBoard's own code answers its page."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from tests.helpers import make_config
from trainer.engine.jobs import Job, fill_rows
from trainer.record.run_files import RunFiles

SETTINGS: list[dict[str, Any]] = [
    {"clip_norm": clip, "model.width": width, "data.train_size": size}
    for clip, width, size in [(None, 16, 200), (2.0, [16, 8], 1000), (10.0, 16, None), (None, [16, 8], 90)]
]
METRICS = ["val/loss", "eval/train_loss", "test/loss", "val/accuracy", "eval/train_accuracy", "test/accuracy"]


class Board:
    """TensorBoard's answers for a --logdir."""

    def __init__(self, folder: Path) -> None:
        runs = EventMultiplexer()
        runs.AddRunsFromDirectory(str(folder))
        runs.Reload()
        provider = MultiplexerDataProvider(runs, str(folder))
        self.context = backend_context.Context(TBContext(data_provider=provider))

    def rows(self, **column: Any) -> list[api_pb2.SessionGroup]:
        asked = {"colParams": [column] if column else [], "sliceSize": 100, "startIndex": 0, "includeMetrics": True}
        statuses = ["STATUS_UNKNOWN", "STATUS_RUNNING"]
        request = json_format.ParseDict({**asked, "allowedStatuses": statuses}, api_pb2.ListSessionGroupsRequest())
        found = list_session_groups.Handler(RequestContext(), self.context, "", request).run()
        return list(found.session_groups)

    def experiment(self) -> api_pb2.Experiment:
        request = api_pb2.GetExperimentRequest(include_metrics=True)
        return get_experiment.Handler(RequestContext(), self.context, "", request).run()


def record_sweep(folder: Path, settings: list[dict[str, Any]], seeds: int) -> None:
    cells = [{**one, "seed": seed} for one in settings for seed in range(seeds)]
    jobs = [
        Job(i, folder / str(i), [f"{key}={value}" for key, value in one.items()], make_config(**one))
        for i, one in enumerate(cells)
    ]
    fill_rows(jobs)
    for job in jobs:
        assert job.config is not None
        sides = {name: [f"eval/train_{name}", f"val/{name}"] for name in ("loss", "accuracy")}
        files = RunFiles(job.destination, job.config, {"train and validation": sides})
        files.scalars(3, {"val/loss": 0.5, "activation_mean/a": 1.0}, 1.0)
        files.flush()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    folder = tmp_path_factory.mktemp("board")
    record_sweep(folder / "sweep", SETTINGS, 3)
    record_sweep(folder / "again", SETTINGS[:1], 2)
    return Board(folder)


def test_each_run_has_a_row_of_its_own_named_by_what_was_swept(board: Board) -> None:
    names = [row.name for row in board.rows()]
    assert len(names) == len(set(names)) == 3 * len(SETTINGS) + 2
    assert any(name.startswith("clip_norm=2.0 width=[16, 8] train_size=1000 seed=1 (") for name in names)
    assert sum(name.startswith("seed=") for name in names) == 2


def test_losses_and_accuracies_are_the_columns_and_what_differs_stands_first(board: Board) -> None:
    experiment = board.experiment()
    assert [info.name.tag for info in experiment.metric_infos] == METRICS
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) > {"optimizer.lr", "model.dropout", "seed"}
    first = [info.name for info in experiment.hparam_infos if info.differs]
    assert first == [info.name for info in experiment.hparam_infos][: len(first)]
    assert all(info.type for info in infos.values())


@pytest.mark.parametrize("key", ["clip_norm", "model.width", "data.train_size", "seed", "optimizer.name"])
@pytest.mark.parametrize("order", ["ORDER_ASC", "ORDER_DESC"])
def test_every_column_sorts_and_filters_across_sweeps(board: Board, key: str, order: str) -> None:
    rows = board.rows(hparam=key, order=order)
    assert len(rows) == 3 * len(SETTINGS) + 2
    cells = [row.hparams[key] for row in rows if key in row.hparams]
    values = [getattr(cell, str(cell.WhichOneof("kind"))) for cell in cells]
    assert values == sorted(values, reverse=order == "ORDER_DESC")


def test_a_list_is_found_by_its_text_and_a_number_by_its_range(board: Board) -> None:
    assert len(board.rows(hparam="model.width", filterDiscrete=["[16, 8]"])) == 6
    assert len(board.rows(hparam="model.width", filterDiscrete=["16.0"])) == 6 + 2
    above = {"hparam": "clip_norm", "filterInterval": {"minValue": 5, "maxValue": 20}, "excludeMissingValues": True}
    assert len(board.rows(**above)) == 3

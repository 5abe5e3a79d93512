"""Tables and histories of many tools and hands hold the curves that were written into them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer import evaluate
from trainer.read.find_runs import find_runs

N = 12
TRAIN = [round(2.5 * 0.75**i, 4) for i in range(N)]
VAL = [round(2.6 * 0.7**i + 0.05 * i, 4) for i in range(N)]  # lowest in the middle
OTHER = [round(2.7 * 0.8**i + 0.1, 4) for i in range(N)]


def rows(line: Callable[[int], str], head: str = "epoch,train_loss,val_loss\n") -> str:
    return head + "".join(line(i) + "\n" for i in range(N))


PLAIN = rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]}")
TWO = {"a": VAL, "b": OTHER}
ONE: dict[str, str | bytes] = {  # file -> content: each holds one run, whose epochs begin with 0
    "plain.csv": PLAIN,
    "no_end.csv": PLAIN.rstrip("\n"),
    "cut.csv": PLAIN + f"{N},0.1",
    "utf16.csv": PLAIN.replace("\n", "\r\n").encode("utf-16"),
    "comments.csv": "# lr=0.1\n" + PLAIN.replace("\n5,", "\n# resumed\n5,"),
    "title.csv": "Training of model A\n\n" + PLAIN,
    "header_again.csv": PLAIN.replace("\n5,", "\nepoch,train_loss,val_loss\n5,"),
    "decimal_commas.csv": PLAIN.replace(",", ";").replace(".", ","),
    "quoted.csv": rows(lambda i: f'{i}, "{TRAIN[i]}", "{VAL[i]}"', '"Epoch", "Train Loss", "Val Loss"\n'),
    "padded.csv": rows(lambda i: f"{i:9}, {TRAIN[i]:12},{VAL[i]:12}", "    epoch,   train/loss,    val/loss\n"),
    "tensors.csv": rows(lambda i: f"{i},tensor({TRAIN[i]}, device='cuda:0'),np.float64({VAL[i]})"),
    "lists.csv": rows(lambda i: f"{i},[{TRAIN[i]}],tensor([{VAL[i]}])"),
    "savetxt.txt": rows(lambda i: f"{i:.6e} {TRAIN[i]:.6e} {VAL[i]:.6e}", "# epoch train_loss val_loss\n"),
    "short.csv": rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]}", "ep,tr_loss,te_loss\n"),
    "chinese.csv": rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]}", "轮次,训练损失,验证损失\n"),
    "german.csv": rows(
        lambda i: f"{i};{TRAIN[i]};{VAL[i]}".replace(".", ","), "Epoche;Trainingsverlust;Validierungsverlust\n"
    ),
    "french.csv": rows(
        lambda i: f"{i};{TRAIN[i]};{VAL[i]}", "Époque;Perte d'entraînement;Perte de validation\n"
    ).encode("latin-1"),
    "spanish.csv": rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]}", "época,pérdida_entrenamiento,pérdida_validación\n"),
    "japanese.csv": rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]}", "エポック,訓練損失,検証損失\n"),
    "split.json": json.dumps(
        {"columns": ["epoch", "loss", "val_loss"], "data": [[i, TRAIN[i], VAL[i]] for i in range(N)]}
    ),
    "total_alone.csv": rows(lambda i: f"{i},9,{TRAIN[i]},9,{VAL[i]}", "epoch,train_kl,train_total,val_kl,val_total\n"),
    "sets.json": json.dumps({"validation_0": {"logloss": TRAIN}, "validation_1": {"logloss": VAL}}),
    "total.csv": rows(lambda i: f"{i},0,{TRAIN[i]},1,{VAL[i]}", "epoch,train_kl,train_total_loss,val_kl,val_total_loss\n"),  # noqa: E501
    "parts.csv": rows(
        lambda i: f"{i},{TRAIN[i] - 1},1,{VAL[i] - 2},2", "epoch,train/box_loss,train/cls_loss,val/box_loss,val/cls_loss\n",  # noqa: E501
    ),
    "gaps.csv": rows(
        lambda i: f"{9 * i},{i},{TRAIN[i]},NaN\n{9 * i + 4},{i},{TRAIN[i]},NaN\n{9 * i + 8},{i},nan,{VAL[i]}",
        "step,epoch,train_loss,val_loss\n",
    ),
    "batches.csv": rows(
        lambda i: f"{i},0,{TRAIN[i] + 1},\n{i},1,{TRAIN[i] - 1},{VAL[i]}", "epoch,batch,train_loss,val_loss\n"
    ),
    "long.csv": rows(lambda i: f"{i},train_loss,{TRAIN[i]}\n{i},val_loss,{VAL[i]}", "epoch,metric,value\n"),
    "phases.csv": rows(lambda i: f"{i},train,{TRAIN[i]}\n{i},valid,{VAL[i]}", "epoch,phase,loss\n"),
    "keras.json": json.dumps({"loss": TRAIN, "val_loss": VAL}),
    "boosted.json": json.dumps({"train": {"logloss": TRAIN}, "eval": {"logloss": VAL}}),
    "pandas.json": json.dumps({"loss": dict(enumerate(TRAIN)), "val_loss": dict(enumerate(VAL))}),
    "lines.jsonl": rows(
        lambda i: f'{{"epoch": {i}, "loss": {TRAIN[i]}}}\n{{"epoch": {i}, "eval": {{"loss": {VAL[i]}}}}}', ""
    )
    + '{"epoch": 1',
}  # fmt: skip
SEVERAL: dict[str, str] = {  # the same of two runs, a and b
    "export.csv": rows(
        lambda i: f'"{i}","{TRAIN[i]}","9","{VAL[i]}","{TRAIN[i]}","{OTHER[i]}"',
        '"Step","a - train/loss","a - train/loss__MIN","a - val/loss","b - train/loss","b - val/loss"\n',
    ),
    "runs.csv": "run,epoch,train_loss,val_loss\n"
    + "".join(f"{run},{i},{TRAIN[i]},{val[i]}\n" for run, val in TWO.items() for i in range(N)),
    "mixed.csv": "epoch,optimizer,train_loss,val_loss\n"
    + "".join(f"{i},{run},{TRAIN[i]},{val[i]}\n" for i in range(N) for run, val in TWO.items()),
    "long.csv": "run,step,tag,value\n"
    + "".join(f"{r},{i},loss/train,{TRAIN[i]}\n{r},{i},loss/val,{v[i]}\n" for r, v in TWO.items() for i in range(N)),
    "columns.csv": rows(
        lambda i: f"{i},{TRAIN[i]},{VAL[i]},{TRAIN[i]},{OTHER[i]}",
        "epoch,a_train_loss,a_val_loss,b_train_loss,b_val_loss\n",
    ),
    "runs.json": json.dumps({run: {"loss": TRAIN, "val_loss": val} for run, val in TWO.items()}),
}


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ONE)
def test_one_run(name: str, tmp_path: Path) -> None:
    (run,), problems = find_runs([put(tmp_path / name, ONE[name])])
    assert not problems
    np.testing.assert_allclose(run.train_loss, TRAIN, rtol=1e-6)
    np.testing.assert_allclose(run.val_loss, VAL, rtol=1e-6)
    assert run.epochs.tolist() == list(range(N))
    assert run.unit == "epoch"


@pytest.mark.parametrize("name", SEVERAL)
def test_two_runs_in_one_file(name: str, tmp_path: Path) -> None:
    path = put(tmp_path / name, SEVERAL[name])
    found, problems = find_runs([path])
    assert not problems
    assert [run.path for run in found] == [f"{path}#a", f"{path}#b"]
    for run, val in zip(found, TWO.values(), strict=True):
        np.testing.assert_allclose(run.train_loss, TRAIN)
        np.testing.assert_allclose(run.val_loss, val)


def test_settings_in_columns_are_knobs_and_a_fold_is_a_seed(tmp_path: Path) -> None:
    lines = [f"{lr},{fold},{i},{TRAIN[i]},{VAL[i]}" for i in range(N) for lr in (0.1, 0.01) for fold in (0, 1)]
    path = put(tmp_path / "t.csv", "\n".join(["lr,fold,epoch,train_loss,val_loss", *lines]))
    found = [run.config for run in find_runs([path])[0]]
    assert found == [{"lr": lr, "seed": fold} for fold in (0, 1) for lr in (0.01, 0.1)]


def test_a_second_fit_is_judged_apart_and_a_resumed_run_is_one(tmp_path: Path) -> None:
    path = put(tmp_path / "twice.csv", PLAIN + rows(lambda i: f"{i},{TRAIN[i]},{OTHER[i]}", ""))
    (first, second), _ = find_runs([path])
    np.testing.assert_allclose(first.val_loss, VAL)
    np.testing.assert_allclose(second.val_loss, OTHER)
    assert first.remarks == ("the steps start again: 2 fits, each judged apart",)
    lines = PLAIN.splitlines()
    (resumed,), _ = find_runs([put(tmp_path / "resumed.csv", "\n".join([*lines[:8], *lines[5:]]))])
    np.testing.assert_allclose(resumed.val_loss, VAL)


def test_files_of_one_tag_each(tmp_path: Path) -> None:
    """As TensorBoard's page downloads them, in CSV and in JSON, by run and by role; and as a hand writes train.csv."""
    for run, val in TWO.items():
        for tag, values in (("Loss_train", TRAIN), ("Loss_val", val)):
            text = rows(lambda i, values=values: f"1.7e9,{i},{values[i]}", "Wall time,Step,Value\n")
            put(tmp_path / "csv" / f"run-{run}-tag-{tag}.csv", text)
    higher = [value + 1 for value in VAL]
    for role, values in (("train", TRAIN), ("validation", higher)):
        points = json.dumps([[1.7e9, i, value] for i, value in enumerate(values)])
        put(tmp_path / "json" / f"run-{role}-tag-epoch_loss.json", points)
        values = VAL if role == "validation" else values
        put(tmp_path / "hand" / f"{role}.csv", rows(lambda i, values=values: f"{i},{values[i]}", "epoch,loss\n"))
    found, problems = find_runs([tmp_path])
    assert not problems
    assert [run.name for run in found] == ["csv#a", "csv#b", "hand", "json"]
    for run, val in zip(found, (VAL, OTHER, VAL, higher), strict=True):
        np.testing.assert_allclose(run.train_loss, TRAIN)
        np.testing.assert_allclose(run.val_loss, val)


def test_mlflow(tmp_path: Path) -> None:
    run = tmp_path / "mlruns" / "7" / "0123abcd"
    for name, values in (("loss/train", TRAIN), ("loss/val", VAL)):
        put(run / "metrics" / name, rows(lambda i, values=values: f"17000000000{i} {values[i]} {10 * i}", ""))
    for name, text in {"meta.yaml": "", "params/lr": "0.1", "params/opt": "adam", "tags/mlflow.runName": "fox"}.items():
        put(run / name, text)
    (found,), problems = find_runs([tmp_path])
    assert not problems
    assert (found.name, found.config, found.unit) == ("mlruns/7/fox", {"lr": 0.1, "opt": "adam"}, "step")
    assert found.epochs.tolist() == list(range(0, 10 * N, 10))
    np.testing.assert_allclose(found.val_loss, VAL)


def test_a_file_for_each_epoch(tmp_path: Path) -> None:
    for i in range(N):
        put(tmp_path / f"metrics_epoch_{i}.json", json.dumps({"training_loss": TRAIN[i], "validation_loss": VAL[i]}))
    (run,), _ = find_runs([tmp_path])
    np.testing.assert_allclose(run.val_loss, VAL)


def test_settings_in_a_file_beside(tmp_path: Path) -> None:
    """Ray's result of one trial, in two files: one run, with its params."""
    put(tmp_path / "progress.csv", rows(lambda i: f"{TRAIN[i]},{VAL[i]},{i}", "loss,val_loss,training_iteration\n"))
    lines = [json.dumps({"loss": TRAIN[i], "val_loss": VAL[i], "training_iteration": i}) for i in range(N)]
    put(tmp_path / "result.json", "\n".join(lines))
    put(tmp_path / "params.json", '{"lr": 0.1, "layers": [8, 8]}')
    (run,), _ = find_runs([tmp_path])
    assert run.config == {"lr": 0.1, "layers": [8, 8]}
    assert run.unit == "iteration"
    assert run.remarks == ("two loggers recorded the same run: counted once",)


def test_a_lone_accuracy_beside_named_losses_is_of_validation_and_may_be_in_percent(tmp_path: Path) -> None:
    text = rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]},{50 + i}", "epoch,train_loss,valid_loss,accuracy\n")
    (run,), _ = find_runs([put(tmp_path / "t.csv", text)])
    assert run.train_accuracy is None
    np.testing.assert_allclose(run.val_accuracy, (50 + np.arange(N)) / 100)


def test_one_run_in_percent_tells_the_scale_of_all(tmp_path: Path) -> None:
    """At the chance level of 100 classes the highest is 1: not every label is right. Another file's shares stay."""

    def log(name: str, accuracy: str, highest: float) -> str:
        text = rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]},{highest}", f"epoch,train_loss,val_loss,{accuracy}\n")
        return str(put(tmp_path / name / "metrics.csv", text))

    chance, learned = log("a", "val_acc", 1.0), log("b", "val_acc", 60.0)
    log("c", "val_accuracy", 0.9)
    log("d", "val_acc", 1000.0)
    found = [run.val_accuracy for run in find_runs([tmp_path])[0]]
    assert [None if one is None else float(one[-1]) for one in found] == [0.01, 0.6, 0.9, None]
    (alone,), _ = find_runs([chance])
    assert alone.val_accuracy is not None
    assert alone.val_accuracy[-1] == 1.0
    assert evaluate.main([chance, learned, "--min", "val_accuracy=0.9"]) == 1


def test_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which losses were taken where there are several; steps as steps; of an unknown table its columns."""
    text = rows(
        lambda i: f"{9 * i},{TRAIN[i]},{TRAIN[i]},{VAL[i]},{VAL[i]}",
        "iter,train_a_loss,train_loss,val_a_loss,val_loss\n",
    )
    path = put(tmp_path / "t.csv", text)
    assert evaluate.main([str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "read: t.csv: of several losses train_loss against val_loss is judged (there are also train_a_loss" in said
    assert "at iteration 72" in said
    unknown = str(put(tmp_path / "u.csv", rows(lambda i: f"{i},{TRAIN[i]},{VAL[i]}", "epoch,E_in,E_out\n")))
    assert evaluate.main([unknown]) == 2
    assert "found the columns epoch, E_in, E_out; expected" in capsys.readouterr().err
    (run,), _ = find_runs([unknown], "E_in", "E_out")
    np.testing.assert_allclose(run.val_loss, VAL)


def test_accuracies_alone_are_no_run_nor_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "t.csv", rows(lambda i: f"{i},{i / N},{i / N}", "epoch,train_acc,val_acc\n"))
    assert evaluate.main([str(path)]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"{path}: found the columns epoch, train_acc, val_acc; accuracies alone are neither judged nor compared; "
        "log a training and a validation loss beside them"
    ]
    half = put(tmp_path / "half.csv", rows(lambda i: f"{i},{TRAIN[i]},{i / N}", "epoch,train_loss,val_acc\n"))
    assert evaluate.main([str(half)]) == 2
    assert "expected a training loss by a common name and a validation loss" in capsys.readouterr().err
    assert evaluate.main([str(path), "--train-tag", "loss", "--val-tag", "val_acc"]) == 2
    assert capsys.readouterr().err == (
        "--val-tag val_acc: found an accuracy, expected a loss; accuracies beside the losses are found by themselves\n"
    )


def test_tables_that_are_no_runs(tmp_path: Path) -> None:
    """A table of results, and an evaluation's own JSON beside its runs."""
    put(tmp_path / "results.csv", "model,final_train_loss,final_val_loss\n" + "".join(f"m{i},1,2\n" for i in range(9)))
    path = put(tmp_path / "run" / "log.csv", PLAIN)
    assert evaluate.main([str(path), "--json", str(tmp_path / "evaluation.json")]) == 0
    assert [run.name for run in find_runs([tmp_path])[0]] == ["run/log.csv"]

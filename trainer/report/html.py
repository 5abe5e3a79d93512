"""Build report.html: one page with everything inside it, that loads nothing and opens from disk.

Python gathers the numbers as JSON; page/ holds the page itself. No name from a file becomes markup: the JSON has no `<`
in it, and the script puts text into the page as text alone.
"""

import html
import json
import math
import os
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from scipy.special import stdtrit

from trainer import language
from trainer.read.bounded import Unreadable, listing
from trainer.read.configs import read_yaml
from trainer.read.curves import Curves
from trainer.read.other_tools import read_event_folder
from trainer.report import documents, tables, vocabulary
from trainer.report.vocabulary import INTERVAL, MEASURES, NO_KNOB, PER_CLASS, STYLES, VERDICTS, short_names
from trainer.text import merged

_POINTS = 400_000  # numbers in a page's curves, all together
_GRADIENT_RUNS = 8
_GRADIENT_POINTS = 120
_GRADIENT_TAG = re.compile(r"grad(ient)?s?[^/]*norm[^/]*/(?!total$|clipped_total$)(?P<parameter>.+)")
_FILES = ("metrics.csv", "summary.json", ".hydra/config.yaml", "trainer.log", "checkpoints/best.pt", "hparams.yaml")
_FIELDS = ("path", "name", "verdict", "best_epoch", "onset", "sentence", "evidence", "measures", "status", "notes")
_SIDES = {"val": "validation", "train": "training"}
_CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")


def page(evaluation: dict[str, Any], runs: Sequence[Curves], folder: Path, command: str) -> str:
    """Return the page for an evaluation and its runs' curves; links are relative to `folder`, where it will lie."""
    parts = {name: (Path(__file__).parent / "page" / name).read_text("utf-8") for name in _PAGE}
    data = json.dumps(_page_data(evaluation, runs, folder, command), allow_nan=False, separators=(",", ":"))
    return _fill(
        parts["report.html"],
        {
            "/*title*/": html.escape(_title(evaluation)),
            "/*style*/": parts["report.css"] + _verdict_colours(),
            "/*data*/": data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
            "/*script*/": "".join(
                [parts["charts.js"], *(parts[name].removeprefix('"use strict";\n') for name in _PAGE[3:])]
            ),
        },
    )


_SCRIPTS = ("charts.js", "report.js", "effects.js", "runs.js", "all.js")
_PAGE = ("report.html", "report.css", *_SCRIPTS)


def _title(evaluation: Mapping[str, Any]) -> str:
    what = ", ".join(dict.fromkeys(str(path) for path in evaluation["paths"]))
    return language.translated(f"Evaluation of {what}")


def _facts(runs: Sequence[Curves], command: str) -> list[list[str]]:
    """Say when the page was made, of which data and code, and how; what no run knows is left out."""
    data = {str(name) for run in runs if (name := run.config.get("data.name")) is not None}
    commits = {commit for run in runs if isinstance(commit := run.recorded("provenance", "git_commit"), str)}
    said = [
        ["date", time.strftime("%Y-%m-%d %H:%M")],
        ["data", ", ".join(sorted(data))],
        ["commit", ", ".join(sorted(commit[:12] for commit in commits))],
        ["command", command],
    ]
    return [[name, text] for name, text in said if text]


def _verdict_colours() -> str:
    """Return the verdicts' colours as variables of the style sheet: --overfit and the like."""
    light = " ".join(f"--{verdict}: {style.light};" for verdict, style in STYLES.items())
    dark = " ".join(f"--{verdict}: {style.dark};" for verdict, style in STYLES.items())
    return f':root {{ {light} }}\n:root[data-theme="dark"] {{ {dark} }}\n'


def _fill(template: str, values: dict[str, str]) -> str:
    """Replace each placeholder once, from the front: what is filled in is never searched again."""
    done = []
    for placeholder, value in values.items():
        before, _, template = template.partition(placeholder)
        done += [before, value]
    return "".join([*done, template])


def _page_data(evaluation: dict[str, Any], runs: Sequence[Curves], folder: Path, command: str) -> dict[str, Any]:
    """Gather what page/report.js reads."""
    judged, parts = evaluation["runs"], vocabulary.parts(evaluation)
    index = {run["path"]: i for i, run in enumerate(judged)}
    knobs = vocabulary.knob_names(evaluation)
    common = {
        key: value
        for key, value in (judged[0]["config"] if judged else {}).items()
        if all(key in run["config"] and run["config"][key] == value for run in judged)
    }
    ranked = [tables.ranked(part, part["groups"]) for part in parts]
    grids, entries = _runs(evaluation, runs, knobs, common, folder)
    measures = vocabulary.known([*MEASURES, *(name for run in judged for name in run["measures"])])
    metrics = dict.fromkeys(name.partition("_")[2] for run in runs for name in run.metrics)
    return {
        "title": _title(evaluation),
        "words": language.table("page") if language.is_chinese() else {},
        "facts": _facts(runs, command),
        "verdicts": VERDICTS,
        "spelled": {verdict: vocabulary.spelled(verdict) for verdict in VERDICTS},
        "signs": {verdict: style.sign for verdict, style in STYLES.items()},
        "measures": {name: vocabulary.called(name) for name in measures},
        "curves": {f"{side}_{name}": f"{word} {name}" for name in metrics for side, word in _SIDES.items()},
        "per_class": PER_CLASS,
        "knobs": knobs,
        "brief": dict(zip(knobs, short_names(knobs), strict=True)),
        "common": common,
        "x_label": vocabulary.axis(runs),
        "best_at": vocabulary.best_at(judged),
        "t975": _short(stdtrit(np.arange(1, 201), 0.975)),
        "interval": INTERVAL,
        "grids": grids,
        "runs": entries,
        **_answer(
            vocabulary.overview(evaluation), [*vocabulary.broken(evaluation), *vocabulary.findings_by_kind(judged)]
        ),
        "parts": [
            _part(part, groups, index, part is not evaluation) for part, groups in zip(parts, ranked, strict=True)
        ],
        "problems": merged(evaluation["problems"]),
        "gradients": [found for groups in ranked for found in _gradients(groups, index)][:_GRADIENT_RUNS],
        "commands": [["This page", command], *_sweep_commands(runs)],
    }


def _answer(advice: vocabulary.Advice, before: Sequence[str] = ()) -> dict[str, Any]:
    """Gather what can be quoted, what to run next and why, and warnings, after those that stand before them."""
    return {
        "answer": "\n".join(map(language.translated, advice.lines)) or None,
        "next": advice.command,
        "reason": language.translated(advice.next) if advice.reason else None,
        "warnings": list(map(language.translated, [*before, *advice.warnings])),
    }


def _part(
    part: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]], index: Mapping[str, int], named: bool
) -> dict[str, Any]:
    """Gather what the page shows of a comparison; of a sweep among several, its name and its own answer too."""
    groups, runs = part["groups"], part["runs"]
    compared = tables.compared(part)
    laid = tables.table(compared, tables.ordered(compared)) if 0 < len(compared) < len(runs) else None
    return {
        "name": part["name"] if named else None,
        **_answer(vocabulary.advice(part) if named else vocabulary.Advice(None, None, [])),
        "runs": [index[run["path"]] for run in tables.by_group(part)],
        "table": laid and vars(laid),
        "captions": tables.captions(part),
        "copies": {"Markdown": documents.markdown_table(part), "LaTeX": documents.latex_table(part)} if laid else {},
        "claims": list(map(language.translated, vocabulary.claims(part))),
        "classes": {
            number: vars(laid) for number in PER_CLASS if (laid := tables.class_table(compared, runs, number)).rows
        },
        "commands": [
            [group.get("label") or _group_name(group), group["command"]] for group in groups if group.get("command")
        ],
        "groups": [
            {
                "name": _group_name(group),
                "runs": [index[path] for path in group["runs"]],
                "gap": group["measures"].get("gap"),
            }
            for group in ranked
        ],
        "effects": [
            {
                **effect,
                "sentences": list(
                    map(language.translated, vocabulary.of_effect(effect, bool(vocabulary.depends(part, effect))))
                ),
                "beside": language.translated(vocabulary.beside(effect)),
                "why": _in_words(effect.get("why") or []),
            }
            for effect in part["effects"]
            if effect["knob"] != NO_KNOB
        ],
        "interactions": _in_words(part["interactions"]),
        "noise": language.translated(tables.noise(part)),
    }


def _in_words(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what was found with its sentence in the reader's language."""
    return [{**one, "sentence": language.translated(one["sentence"])} for one in found]


def _runs(
    evaluation: dict[str, Any], runs: Sequence[Curves], knobs: Sequence[str], common: dict[str, Any], folder: Path
) -> tuple[list[list[float | None]], list[dict[str, Any]]]:
    """Return the different horizontal axes, and each run's entry with its curves thinned to what a page can show."""
    groups = [group for part in vocabulary.parts(evaluation) for group in part["groups"]]
    levels = {path: group["knobs"] for group in groups for path in group["runs"]}
    drawn = len(_CURVES) + max((len(run.metrics) for run in runs), default=0)
    most = min(max(_POINTS // (drawn * max(len(runs), 1)), 24), 240)
    grids: dict[bytes, int] = {}
    entries = []
    for i, (run, curves) in enumerate(zip(evaluation["runs"], runs, strict=True)):
        keep = np.unique(np.linspace(0, len(curves.epochs) - 1, min(most, len(curves.epochs))).round().astype(int))
        own = {**levels.get(run["path"], {}), "seed": run["config"].get("seed")}
        path = Path(run["path"])
        entries.append(
            {
                **{key: run[key] for key in _FIELDS},
                **{name: _short(values[keep]) for name in _CURVES if (values := getattr(curves, name)) is not None},
                **{name: _short(values[keep]) for name, values in curves.metrics.items()},
                "index": i,
                "x": grids.setdefault(curves.epochs[keep].tobytes(), len(grids)),
                "levels": own,
                "knobs": [own.get(knob) for knob in knobs],
                "config": {key: value for key, value in run["config"].items() if key not in common},
                "health": [vocabulary.finding(item) for item in run["health"]],
                "judged": vocabulary.judged(run),
                "doubtful": vocabulary.called_verdict(run) == vocabulary.DOUBTFUL,
                "sentence": vocabulary.reason(run),
                "command": run_command(path),
                "link": _link(path, folder),
                "files": _files(path, folder),
            }
        )
    return [_short(np.frombuffer(key)) for key in grids], entries


def _group_name(group: Mapping[str, Any]) -> str:
    levels = group["knobs"]
    if not levels or NO_KNOB in levels:
        return group["name"].removeprefix(f"{NO_KNOB}=")
    names = short_names(list(levels))
    return " ".join(vocabulary.setting(name, value) for name, value in zip(names, levels.values(), strict=True))


def _short(values: np.ndarray) -> list[float | None]:
    """Round to five digits, as many as a picture shows; None for what is not finite."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]


# ------------------------------------------------------------------ files


def _link(path: Path, folder: Path) -> str:
    try:
        return quote(os.fsencode(os.path.relpath(path, folder).replace(os.sep, "/")))
    except ValueError:  # another drive
        return path.resolve().as_uri()


def _files(path: Path, folder: Path) -> list[list[str]]:
    return [[name, _link(path / name, folder)] for name in _FILES if os.path.isfile(path / name)]


def run_command(path: Path) -> str | None:
    """Return the command that makes this run of ours again, from the overrides that Hydra wrote down."""
    overrides = None
    with suppress(Unreadable):
        overrides = read_yaml(path / ".hydra" / "overrides.yaml")
    return shlex.join(["python", "-m", "trainer", *map(str, overrides)]) if isinstance(overrides, list) else None


def _sweep_commands(runs: Iterable[Curves]) -> list[list[str]]:
    """Return the commands of the sweeps that the runs belong to, from Hydra's multirun.yaml beside them."""
    commands = []
    for sweep in sorted({Path(run.path).parent for run in runs if run.source == "trainer"}):
        overrides: Any = None
        with suppress(Unreadable):
            overrides = read_yaml(sweep / "multirun.yaml")
        for key in ("hydra", "overrides", "task"):
            overrides = overrides.get(key) if isinstance(overrides, dict) else None
        if not isinstance(overrides, list):
            continue
        commands.append([f"The sweep {sweep}", shlex.join(["python", "-m", "trainer", "-m", *map(str, overrides)])])
    return commands[:20]


# ------------------------------------------------------------------ gradient norms


def _gradients(ranked: Sequence[Mapping[str, Any]], index: Mapping[str, int]) -> list[dict[str, Any]]:
    """Read gradient norms by parameter over the steps of a few runs: of groups with much gap, and with little."""
    half = _GRADIENT_RUNS // 2
    chosen = [*ranked[:half], *ranked[half:][-half:]]
    found = []
    for group in chosen:
        path, files = Path(group["runs"][0]), list[str]()
        with suppress(Unreadable):
            files = [entry.name for entry in listing(path) if "tfevents" in entry.name]
        series, _ = read_event_folder(path, files)
        named = {tag: match["parameter"] for tag in series if (match := _GRADIENT_TAG.fullmatch(tag))}
        if not named:
            continue
        thinned = {parameter: _means(series[tag].values) for tag, parameter in named.items()}
        steps = next(series[tag].steps for tag in named)
        norms = {parameter: _short(values) for parameter, values in thinned.items() if len(values)}
        found.append({"run": index[group["runs"][0]], "steps": _short(_means(steps)), "norms": norms})
    return found


def _means(values: np.ndarray) -> np.ndarray:
    """Average over at most _GRADIENT_POINTS stretches of about equal length."""
    edges = np.unique(np.linspace(0, len(values), min(_GRADIENT_POINTS, len(values)), endpoint=False).astype(int))
    return np.add.reduceat(values, edges) / np.diff(np.append(edges, len(values)))

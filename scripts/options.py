"""Write docs/options.md, every option of the command line, from conf/ and trainer/config/.

    python -m scripts.options

tests/test_readme.py fails when the page is out of date.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from trainer.cli.config_files import CONF, Sources
from trainer.cli.help import knobs
from trainer.config import Config

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
GROUPS = ("data", "model", "optimizer", "schedule", "problem", "experiment")
SELECTED = (  # choices that bring keys of their own
    "model=cnn",
    "optimizer=sgd",
    "optimizer=rmsprop",
    "optimizer=nadam",
    "schedule=step",
    "schedule=multistep",
    "schedule=linear",
    "schedule=polynomial",
    "schedule=cosine_restarts",
    "schedule=one_cycle",
    "schedule=plateau",
    "data=spirals",
    "data=csv data.path=FILE data.target=COLUMN",
    "data=folder data.path=DIR",
    "data=custom data._target_=my_data.load",
    "data=sklearn data.dataset=wine",
    "data=torchvision data.dataset=SVHN",
    "problem=rosenbrock",
)
INTRODUCTION = """# Every option

*Generated from `conf/` and `trainer/config/` by `python -m scripts.options`; edit those, not this page.*

`GROUP=NAME` picks a file of `conf/GROUP/`, `KEY=VALUE` sets a value in it. `python -m trainer --help` prints the same
keys with the values of the command line it is given, `python -m trainer --cfg job` the resulting configuration.

- Arguments of a class or function of your own are keys like any other ([own.md](own.md)); `+optimizer.KEY=VALUE`
  passes one that is not listed to a class of `torch.optim`.
- `hydra.run.dir=DIR` and `hydra.sweep.dir=DIR` say where a run or a sweep goes ([resume.md](resume.md)); sweeps have
  more options ([sweeps.md](sweeps.md)).
- Values with brackets, parentheses or braces need quotes in zsh: `'model.width=[64,32]'`.
- Tab completion in bash: `eval "$(trainer -sc install=bash)"`. The command `trainer` is `python -m trainer`.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([INTRODUCTION, "## Groups", "", *choices(), "", *sections()]) + "\n"


def choices() -> list[str]:
    """A table of the files of conf/: what is typed, and the first sentence of the comment on top of the file."""
    rows = ["| choose | what it is |", "| --- | --- |"]
    for group in GROUPS:
        for path in sorted((CONF / group).glob("*.yaml")):
            comments = re.findall(r"^# (?!@package|python -m)(.*)$", path.read_text("utf-8"), re.MULTILINE)
            first_sentence = re.split(r"(?<=\.) (?=[A-Z])", " ".join(comments))[0]
            rows.append(f"| `{group}={path.stem}` | {_cell(first_sentence)} |")
    return rows


def sections() -> list[str]:
    """One heading and one table per group of keys: key, default, meaning with type, unit and range."""
    tables: dict[str, list[str]] = {}
    seen: set[str] = set()
    for selected in ("", *SELECTED):
        values = Sources().compose(selected.split())
        values["data"]["root"] = "~/.cache/trainer"  # whatever the environment says
        for key, value, meaning in knobs(Config, values):
            if key and key not in seen:
                seen.add(key)
                default = f"`{value}`" + (f" with `{selected.split()[0]}`" if selected else "")
                rows = tables.setdefault(key.rpartition(".")[0], [])
                rows.append(f"| `{key}` | {default} | {_cell(meaning)} |")
    lines = []
    for group, rows in tables.items():
        heading = f"`{group}`" if group else "The run"
        lines += [f"## {heading}", "", "| key | default | meaning |", "| --- | --- | --- |", *rows, ""]
    return lines[:-1]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    argparse.ArgumentParser(
        "python -m scripts.options", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(Path.cwd()))

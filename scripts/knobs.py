"""Write the table of every knob into README.md, from trainer/config.py and conf/: python scripts/knobs.py"""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from trainer.cli.overrides import CONF, knobs
from trainer.config import Config

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- knobs: written by scripts/knobs.py -->\n", "<!-- end of knobs -->"
OTHERS = (
    "optimizer=sgd",
    "optimizer=rmsprop",
    "schedule=step",
    "data=spirals",
    "problem=rosenbrock",
)  # options with keys of their own


def table() -> str:
    """A Markdown table: key, default, meaning with type, unit and range."""
    lines = ["| key | default | |", "| --- | --- | --- |"]
    seen = set()
    for option in ("", *OTHERS):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides=[option] if option else [])
        composed.data.root = "~/.cache/trainer"  # whatever the environment says
        values = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(values, dict)
        for key, value, text in knobs(Config, {str(k): v for k, v in values.items()}):
            if key and key not in seen:
                seen.add(key)
                default = f"`{value}`" + (f" with `{option}`" if option else "")
                lines.append(f"| `{key}` | {default} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """README.md's text with today's table between its marks."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")

"""What is said in Chinese: the words of the page by the English ones; why a run is judged so, from its numbers.

What a sweep comes to, health findings and warnings stay as the judge and the comparison wrote them, in English.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORDS: dict[str, str] = json.loads((Path(__file__).parent / "page" / "zh.json").read_text(encoding="utf-8"))


def is_chosen() -> bool:
    """Whether the reader wants Chinese: by TRAINER_LANG, else by the locale."""
    named = (os.environ.get(name) for name in ("TRAINER_LANG", "LC_ALL", "LC_MESSAGES", "LANG"))
    return next((name for name in named if name), "").lower().startswith("zh")


def translated(text: str, **values: Any) -> str:
    """Return a text of WORDS with its places filled."""
    return WORDS[text].format(**values)


def reason(run: Mapping[str, Any], is_unsure: bool) -> str:
    """Say why a run is judged so, from its verdict, kind, epochs and evidence; what the evidence lacks is left out."""
    found, best, onset = run.get("evidence") or {}, run.get("best_epoch"), run.get("onset")
    unit = "轮" if run.get("unit", "epoch") == "epoch" else "步"
    at = "" if best is None else f"在第 {best:g} {unit}"
    lowest = _number("最低为 {:.4g}", found.get("best_val_loss"))
    gap = found.get("gap")
    ends = _number(f"结束时比训练损失{'高' if (gap or 0) > 0 else '低'} {{:.3g}}", None if gap is None else abs(gap))
    if run["verdict"] == "overfit":
        since = "" if onset is None else f"从第 {onset:g} {unit}起"
        if run.get("kind") == "gap":
            parts = [
                f"{since}验证损失几乎不再下降，与训练损失的差距拉大",
                _number("差距扩大了已学到的 {:.0%}", found.get("gap_share")),
            ]
        else:
            parts = [f"{since}验证损失回升", f"它{at}{lowest}" if at and lowest else ""]
            parts += [
                _number("回升了 {:.3g}", found.get("rise")),
                _number("相当于已学到的 {:.0%}", _ratio(found.get("rise"), found.get("learned"))),
            ]
            lost = _number("验证准确率损失 {:.2%}", found.get("accuracy_lost"))
            parts.append("验证准确率没有下降" if run.get("kind") == "loss_only" else lost)
    elif run["verdict"] == "diverged":
        since = _number(f"从第 {{:g}} {unit}到最后，损失不是有限值", found.get("not_finite_from"))
        parts = [since or _number("训练损失又升回到 {:.4g}，并停在那里", found.get("train_end")) or "损失发散了"]
    elif run["verdict"] == "underfit":
        parts = ["学得太少，或者还在学", _number("训练损失最低到 {:.4g}", found.get("train_low"))]
    elif run["verdict"] == "too_short":
        parts = [_number("只有 {:g} 轮的损失是有限值，不足以判断", found.get("epochs")) or "轮数太少，不足以判断"]
    elif run["verdict"] == "no_validation":
        parts = ["没有验证损失，看不出是否过拟合"]
    else:
        parts = [f"验证损失{at}{lowest}" if lowest else "", "不算过拟合", ends]
    if is_unsure:
        parts.append(_number("没有把握：过拟合的概率为 {:.0%}", run.get("probability")))
    return "，".join(part for part in parts if part)


def _number(text: str, value: Any) -> str:
    """Fill a value into a text; nothing where there is none."""
    return text.format(value) if isinstance(value, int | float) else ""


def _ratio(a: Any, b: Any) -> float | None:
    return a / b if isinstance(a, float) and isinstance(b, float) and b > 0 else None

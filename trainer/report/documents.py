"""An evaluation as files to publish: Markdown, LaTeX (booktabs) and CSV, the groups a row each."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.report import tables, vocabulary
from trainer.text import printable

_STATISTICS = ("mean", "low", "high", "sd", "n")


def csv_table(evaluation: Mapping[str, Any]) -> str:
    """Return a row for each group: its knobs, runs, share that overfit, failures, then every measure's statistics.

    Columns: sweep (of several), group, chosen (whether validation chose its tuned knobs; where any are tuned), the
    knobs, `chosen KEY` for what validation chose, n, overfit_share, failed (of n), and for each measure MEASURE_mean,
    _low, _high (95 % t interval), _sd and _n (runs with a value). What is not known is empty.
    """
    parts = vocabulary.parts(evaluation)
    groups = [group for part in parts for group in part["groups"]]
    several = ["sweep"] if len(evaluation.get("sweeps") or []) > 1 else []
    chosen = {name for part in parts for name in (part.get("chosen") or {}).values()}
    knobs = list(dict.fromkeys(knob for group in groups for knob in group["knobs"]))
    tuned = list(dict.fromkeys(key for group in groups for key in group.get("tuned") or {}))
    measures = vocabulary.known(sorted(measure for group in groups for measure in group["measures"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *several,
            "group",
            *(["chosen"] if chosen else []),
            *map(printable, knobs),
            *(printable(f"chosen {key}") for key in tuned),
            *("n", "overfit_share", "failed"),
            *(f"{measure}_{statistic}" for measure in measures for statistic in _STATISTICS),
        ]
    )
    for part in parts:
        for group, failed in zip(part["groups"], tables.failures(part["groups"]), strict=True):
            estimates = [group["measures"].get(measure) or {} for measure in measures]
            row = [
                *(part["name"] for _ in several),
                group["name"],
                *([group["name"] in (part.get("chosen") or {}).values()] if chosen else []),
                *(group["knobs"].get(knob) for knob in knobs),
                *((group.get("tuned") or {}).get(key) for key in tuned),
                *(group["n"], group["overfit_share"]["mean"], failed),
                *(estimate.get(statistic) for estimate in estimates for statistic in _STATISTICS),
            ]
            writer.writerow(printable(value) if isinstance(value, str) else value for value in row)
    return out.getvalue()


# ------------------------------------------------------------------ Markdown


def markdown(evaluation: Mapping[str, Any]) -> str:
    """Return the answer, the reasons to doubt it, and the table of groups, in GitHub's Markdown."""
    blocks = _markdown_answer(vocabulary.overview(evaluation), vocabulary.broken(evaluation))
    for part in vocabulary.parts(evaluation):
        if part is not evaluation:
            blocks += [f"## {_markdown(part['name'])}", *_markdown_answer(vocabulary.advice(part), [])]
        if part["groups"]:
            blocks.append(markdown_table(part))
    return "\n\n".join(blocks) + "\n"


def markdown_table(part: Mapping[str, Any]) -> str:
    """Return the table of a comparison's groups, and what its numbers are."""
    groups = tables.compared(part)
    shown = tables.printed_measures(groups)
    laid = tables.table(groups, shown)
    rule = [*("---" for _ in laid.names), *("---:" for _ in laid.numbers)]
    head = [_markdown(title) for title in (*laid.names, *laid.numbers)]
    rows = [head, rule, *([_markdown(cell) for cell in row] for row in laid.rows)]
    return "\n\n".join(["\n".join(f"| {' | '.join(row)} |" for row in rows), _markdown(_legend(part, shown))])


def _markdown_answer(advice: vocabulary.Advice, broken: Sequence[str]) -> list[str]:
    """Return the blocks of a paragraph to quote, the command to run next, and warnings."""
    text, command, warnings = advice.text, advice.command, advice.warnings
    lines = [*(f"broken: {one}" for one in broken), *warnings]
    return [
        *([_markdown(text)] if text else []),
        *([f"N{_markdown(advice.next)[1:]}\n\n    {printable(command)}"] if command else []),
        *(["\n".join(f"- {_markdown(line)}" for line in lines)] if lines else []),
    ]


def _markdown(text: str) -> str:
    r"""Escape what Markdown and HTML would read as markup; \ before a mark takes its meaning away (CommonMark 2.4)."""
    escaped = re.sub(r"([\\`*_\[\]<>&|~$#])", r"\\\1", printable(text))
    return re.sub(r"^(\s*\d*)([-+=.)])", r"\1\\\2", escaped) if re.match(r"\s*([-+=]|\d+[.)])\s", escaped) else escaped


# ------------------------------------------------------------------ LaTeX

_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # behind \\ they would be an argument
    "]": "{]}",
    "*": "{*}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "−": "$-$",
    **{mark: "\\" + mark for mark in "{}$&#%_"},
}


def latex(evaluation: Mapping[str, Any], command: str) -> str:
    r"""Return the answer and the table of groups for \input: needs \usepackage{booktabs} and \usepackage[T1]{fontenc}.

    Warnings are comments. Letters beyond Latin need LuaLaTeX or XeLaTeX.
    """
    needs = r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"
    blocks = [f"% {printable(command)}\n{needs}", *_latex_answer(vocabulary.overview(evaluation))]
    for number, part in enumerate(vocabulary.parts(evaluation), 1):
        if part is not evaluation:
            blocks += [rf"\paragraph{{{_latex(part['name'])}}}", *_latex_answer(vocabulary.advice(part))]
        if part["groups"]:
            blocks.append(latex_table(part, "" if part is evaluation else f"-{number}"))
    return "\n\n".join(blocks) + "\n"


def _latex_answer(advice: vocabulary.Advice) -> list[str]:
    text, command, warnings = advice.text, advice.command, advice.warnings
    comments = [f"% warning: {printable(warning)}" for warning in warnings]
    comments += [f"% {printable(advice.next)} {printable(command)}"] if command else []
    return [*([_latex(text)] if text else []), *(["\n".join(comments)] if comments else [])]


def latex_table(part: Mapping[str, Any], suffix: str = "") -> str:
    r"""Return the table of a comparison's groups for \input; the suffix tells labels of several apart."""
    groups = tables.compared(part)
    shown = tables.printed_measures(groups)
    laid = tables.table(groups, shown)
    rows = [[*map(_latex, row[: len(laid.names)]), *map(_latex_number, row[len(laid.names) :])] for row in laid.rows]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex(_legend(part, shown))}}}",
        rf"  \label{{tab:evaluation{suffix}}}",
        rf"  \begin{{tabular}}{{{'l' * len(laid.names)}{'r' * len(laid.numbers)}}}",
        r"    \toprule",
        _latex_row([_latex(title) for title in (*laid.names, *laid.numbers)]),
        r"    \midrule",
        *map(_latex_row, rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _latex(text: str) -> str:
    """Escape the marks that TeX reads as commands; of two hyphens it would make a dash."""
    escaped = "".join(_LATEX.get(character, character) for character in printable(text))
    return re.sub("-(?=-)", "-{}", escaped)


def _latex_number(text: str) -> str:
    """Set a cell of numbers in math, where it is one: with a minus, not a hyphen."""
    if not re.fullmatch(r"-?[\d.e+-]+%?( ± [\d.e+-]+%?)?", text):
        return _latex(text)
    power = re.sub(r"e([+-]?)0*(\d+)", lambda found: rf" \cdot 10^{{{found[1].replace('+', '')}{found[2]}}}", text)
    return f"${power.replace('%', chr(92) + '%').replace('±', chr(92) + 'pm')}$"


def _legend(part: Mapping[str, Any], shown: Sequence[str]) -> str:
    """Say what the numbers are: the interval, then each measure in full."""
    named = [vocabulary.called(name) for name in shown if name != "gap"]
    spelled = [f"{one.short}: {one.full}" for one in named if one.short != one.full]
    gap = ["gap: validation − training loss at the end"] if "gap" in shown else []
    return "; ".join([f"n runs; {tables.caption(part)}", *spelled, *gap]) + "."

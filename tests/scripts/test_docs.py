"""docs/trace/ shows what its commands print today, in both languages; its links and pictures are there."""

import re
from pathlib import Path

import pytest

from scripts import docs

LANGUAGES = ("en", "zh")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    return re.findall(r"^\$ .*$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", docs.pages(), ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_output_is_current(page: Path) -> None:
    """If not: python -m scripts.docs"""
    text = page.read_text(encoding="utf-8")
    assert docs.agree(text, docs.written(text))


def test_the_picture_is_current() -> None:
    assert docs.agree(docs.PICTURE.read_text(encoding="utf-8"), docs.picture())


def test_both_languages_have_the_same_pages_commands_and_headings() -> None:
    ours, theirs = ([page for page in docs.pages() if page.parent.name == name] for name in LANGUAGES)
    assert [page.name for page in ours] == [page.name for page in theirs]
    assert len(ours) == 13
    for one, other in zip(ours, theirs, strict=True):
        assert commands(one) == commands(other)
        assert commands(one)
        headings = [re.findall(r"^#+", page.read_text(encoding="utf-8"), re.MULTILINE) for page in (one, other)]
        assert headings[0] == headings[1]
        without_comments = [re.sub(r" *#.*", "", "".join(blocks(page, "bash"))) for page in (one, other)]
        assert without_comments[0] == without_comments[1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("by hand 0.123456 (5, 4)", "by hand 0.123457 (5, 4)", True),
        ("error 4e-11", "error 0", True),
        ("error 4e-11", "error 4e-02", False),
        ("mean 0.12", "mean 0.13", False),
        ("ReluBackward0", "TanhBackward0", False),
        ("two words", "two more words", False),
        ("loss nan", "loss 1", False),
    ],
)
def test_texts_agree_but_for_rounding(one: str, other: str, same: bool) -> None:
    assert docs.agree(one, other) == same


def test_other_commands_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\$ rm -r x: a block begins with \$ python -m trainer\.trace$"):
        docs.written("```console\n$ rm -r x\n```\n")

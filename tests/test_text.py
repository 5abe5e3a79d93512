"""Words from elsewhere: nothing that a terminal would obey is left of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.text import cut, few, key_of, merged, plural, printable


def test_of_many_names_the_first_are_listed_and_the_others_counted() -> None:
    assert few([]) == ""
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few(list("abcde"), of=" keys") == "a, b, c and 2 more keys"
    assert few([0, 3], 1) == "0 and 1 more"


def test_what_many_lines_say_alike_is_said_once_with_their_count() -> None:
    lines = [f"run/{n}: nothing to judge: ValueError" for n in range(7)]
    assert merged([*lines, "of no one", "run/9: torn"]) == [
        "run/0, run/1, run/2 and 4 more: nothing to judge: ValueError",
        "of no one",
        "run/9: torn",
    ]


def test_counts_cuts_and_keys() -> None:
    assert [plural(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert [cut("abcd", n) for n in (4, 3)] == ["abcd", "ab…"]
    assert [key_of(text) for text in ("a.b=1=2", "+a=1", "++a=1", "~a", "~a=1")] == ["a.b", "a", "a", "a", "a"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]é 中文 ± \N{NO-BREAK SPACE}|", "plain [red]é 中文 ± \N{NO-BREAK SPACE}|"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("a\u202etxt.exe\u2066\u200f", r"a\u202etxt.exe\u2066\u200f"),
        ("a\nb\tc\rd\u2028e", r"a\nb\tc\rd\u2028e"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_text_becomes_one_line_that_can_be_printed(text: str) -> None:
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    assert printable(shown) == shown

"""The script of a storyboard: what people write, and what is refused with which line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runcomfy_kling.nodes.errors import InputError
from runcomfy_kling.nodes.kling.storyboard import Shot, parse, total


def test_a_script_is_shots_in_order() -> None:
    script = "[5s] Wide shot of terraced hills at dusk.\n[3s] Close on two glasses touching."
    assert parse(script) == (
        Shot("Wide shot of terraced hills at dusk.", 5),
        Shot("Close on two glasses touching.", 3),
    )


@pytest.mark.parametrize(
    ("script", "shots"),
    [
        ("\n  [3S]   trimmed  \n", (Shot("trimmed", 3),)),
        ("[4s] first line\nsecond [close] line\n\nfourth", (Shot("first line\nsecond [close] line\n\nfourth", 4),)),
        ("[3s] he says [5s] is long", (Shot("he says [5s] is long", 3),)),
        ("[ 3 s ] spaces\r\n[4.0s] windows", (Shot("spaces", 3), Shot("windows", 4))),
        ("[3s] 雨の街\n[3s] 빗속의 거리", (Shot("雨の街", 3), Shot("빗속의 거리", 3))),
    ],
)
def test_what_people_write(script: str, shots: tuple[Shot, ...]) -> None:
    assert parse(script) == shots


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", ["script is empty"]),
        ("A man walks.", ["line 1", "[5s]"]),
        ("\n\nA man walks.\n[5s] He stops.", ["line 3"]),
        ("[5s] fine\n[2s] short", ["line 2", "shot 2", "2 s", "3 to 15 s"]),
        ("[16s] long", ["line 1", "16 s", "3 to 15 s"]),
        ("[4.5s] half", ["line 1", "4.5 s", "whole seconds"]),
        ("[5s]\n[5s] second", ["line 1", "shot 1", "no prompt"]),
        ("[8s] one\n[8s] two", ["16 s", "2 shots", "3 to 15 s"]),
    ],
)
def test_what_is_refused(script: str, words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        parse(script)
    for word in words:
        assert word in str(refused.value)


prompts = st.text(min_size=1).map(str.strip).filter(lambda text: text and "[" not in text and "\r" not in text)


@given(st.lists(st.tuples(st.integers(3, 5), prompts), min_size=1, max_size=3))
def test_what_is_printed_is_read_back(shots: list[tuple[int, str]]) -> None:
    script = "\n".join(f"[{seconds}s] {prompt}" for seconds, prompt in shots)
    assert parse(script) == tuple(Shot(prompt, seconds) for seconds, prompt in shots)


@pytest.mark.parametrize("seconds", [(1,), (8, 8)])
def test_a_whole_video_lasts_3_to_15_seconds(seconds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"{sum(seconds)} s"):
        total(tuple(Shot("x", length) for length in seconds))

"""The score cache: what was put comes back after reopening, a torn tail is dropped, damage is named.

Addresses change with anything that a score depends on.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core.item import BenchmarkError, Unscored
from benchmark.core.score_cache import Score, ScoreStore, address

SCORES: dict[str, Score] = {"a": 1.25, "b": math.inf, "c": Unscored("no mask"), "d": -math.inf}


def filled(path: Path) -> ScoreStore:
    store = ScoreStore(path)
    store.put((key, score, {"item": key}) for key, score in SCORES.items())
    return store


def test_scores_come_back_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path / "scores.jsonl")
    again = ScoreStore(tmp_path / "scores.jsonl")
    assert {key: again.get(key) for key in SCORES} == SCORES
    assert again.get("nothing") is None


def test_every_cut_of_the_last_line_loses_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    filled(path)
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        store = ScoreStore(path)
        assert len(store) == 3
        store.put([("e", 2.0, {})])
        assert len(ScoreStore(path)) == 4


def test_damage_inside_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"address": 3\n' + lines[2])
    with pytest.raises(BenchmarkError, match=r"scores\.jsonl: line 2 is damaged"):
        ScoreStore(path)


@given(st.lists(st.one_of(st.text(max_size=4), st.integers(), st.none()), max_size=4))
def test_an_address_is_of_its_parts_and_their_order(parts: list[object]) -> None:
    assert address(*parts) == address(*parts)
    assert address(*parts) != address(*parts, 0)
    if parts != parts[::-1]:
        assert address(*parts) != address(*parts[::-1])

"""What a sample may say, and how a wrong one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.sample import SampleError, parse_sample, split_text, tags_of
from shards.writer import Item

names = st.sampled_from(["video1", "video2", "image1", "image12", "mask", "mask2"])
words = st.text(st.characters(blacklist_characters="<>", blacklist_categories=["Cs"]), max_size=20)


@given(st.lists(st.one_of(names.map(lambda n: ("media", n)), words.map(lambda w: ("text", w))), max_size=8))
def test_split_text_finds_every_tag_and_keeps_every_word(parts: list[tuple[str, str]]) -> None:
    text = " ".join(f"<{value}>" if kind == "media" else value for kind, value in parts)
    found = split_text(text)
    assert [v for k, v in found if k == "media"] == [v for k, v in parts if k == "media"] == tags_of(text)
    words_in = "".join(v for k, v in parts if k == "text").split()
    assert "".join("".join(v.split()) for k, v in found if k == "text") == "".join(words_in)


@given(st.text(max_size=60))
def test_split_text_takes_any_text(text: str) -> None:
    assert all(value for _, value in split_text(text))


@pytest.fixture
def document(tmp_path, make_items: Callable[..., list[Item]]) -> dict:
    sample, _ = make_items(tmp_path, pairs=1, frames=2)[0]
    return json.loads(sample.to_json())


def test_json_goes_round(document: dict) -> None:
    sample = parse_sample(json.dumps(document), "x.json")
    assert json.loads(sample.to_json()) == document
    assert sample.to_json() == parse_sample(sample.to_json(), "x.json").to_json()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"key": "Has.dots"}, "key"),
        ({"key": "k" * 101}, "key"),
        ({"schema": 2}, "schema"),
        ({"surprise": 1}, "surprise"),
        ({"text": "<video1> Remove it. <video2> <video3>"}, "<video3>"),
        ({"text": "<video1> Remove it."}, "video2"),
        ({"text": "<video1> <video1> Remove it. <video2>"}, "more than once"),
        ({"targets": []}, "targets"),
        ({"targets": ["video9"]}, "video9"),
        ({"targets": ["video2", "video2"]}, "repeated"),
        ({"text": "<video1> Find it. <mask> <video2>", "targets": ["mask"]}, "mask"),
        ({"scores": {"adherence": "8"}}, "scores"),
        ({"split": "test"}, "split"),
    ],
)
def test_a_wrong_field_is_named(document: dict, change: dict, complaint: str) -> None:
    with pytest.raises(SampleError) as caught:
        parse_sample(json.dumps(document | change), "shard.tar: a.json")
    assert str(caught.value).startswith("shard.tar: a.json: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("video1", {"file": "../video1.mp4"}, "file must be"),
        ("video1", {"frames": 0}, "frames"),
        ("video1", {"frames": 9.0}, "frames"),
        ("video1", {"fps": None}, "fps"),
        ("mask", {"kind": "video"}, "mask"),
        ("video1", {"sha256": "abc"}, "sha256"),
    ],
)
def test_a_wrong_media_field_is_named(document: dict, name: str, change: dict, complaint: str) -> None:
    document["media"][name] |= change
    with pytest.raises(SampleError, match=complaint):
        parse_sample(json.dumps(document), "a.json")


def test_an_unobtained_score_is_null(document: dict) -> None:
    sample = parse_sample(json.dumps(document | {"scores": {"aesthetics": None}}), "a.json")
    assert json.loads(sample.to_json())["scores"] == {"aesthetics": None}

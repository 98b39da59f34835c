"""Hashes that name what is stored: their bytes never change."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from benchmark.core.score_cache import address
from model.data.latent_cache import digest_of
from shards.hashing import Form, canonical, digest

VALUE = {"b": [1, 2.5, None, True], "a": {"\u00fc": "\u732b"}}


@dataclass
class Point:
    """A value with fields."""

    y: int
    x: int


@pytest.mark.parametrize(
    ("form", "text", "sha256"),
    [
        (
            "compact",
            r'{"a":{"\u00fc":"\u732b"},"b":[1,2.5,null,true]}',
            "9106149929d82e3549e7d33710c2bd2fe73d7662fe4d82a76645094b07f44ad5",
        ),
        (
            "compact_utf8",
            '{"a":{"\u00fc":"\u732b"},"b":[1,2.5,null,true]}',
            "1ac3ab8f7941d611d327d0ba8820efa62bbd2329ce832ec0ba8b5e44fde78154",
        ),
        (
            "spaced",
            r'{"a": {"\u00fc": "\u732b"}, "b": [1, 2.5, null, true]}',
            "6c83d25c779b751083be5b795f35f9e5d8a9519385b96b1a2d394ce5fcf968ee",
        ),
    ],
)
def test_every_form_has_its_bytes_for_ever(form: Form, text: str, sha256: str) -> None:
    assert canonical(VALUE, form) == text
    assert digest(VALUE, form) == sha256
    assert digest(dict(reversed(VALUE.items())), form) == sha256


def test_what_is_stored_is_found_under_the_name_that_it_got() -> None:
    assert address(VALUE) == "78b1bc6fbf7f06f09c46f355b873f84a2a0e2d1a82f6abea12a6a4a4de38a06b"
    assert digest_of(VALUE) == "6c83d25c779b751083be5b795f35f9e5d8a9519385b96b1a2d394ce5fcf968ee"


def test_dataclasses_count_as_their_fields_and_other_objects_are_refused() -> None:
    assert canonical([Point(1, 2)]) == '[{"x":2,"y":1}]'
    with pytest.raises(TypeError, match="object cannot be part of a hash"):
        digest(object())

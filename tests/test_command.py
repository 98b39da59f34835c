"""One style of command line for every command."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonargparse import auto_cli

from shards.command import Parser
from shards.resources import config_root


def work(place: str, dry_run: bool = False, keep: bool = True, add_metrics: str = "", names: int = 0) -> str:
    """Give back what it gets."""
    return f"{place} {dry_run} {keep} {add_metrics} {names}"


def other(place: str = "none") -> str:
    """Another command."""
    return place


def run(*words: str) -> str:
    return auto_cli([work, other], args=list(words), parser_class=Parser)


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["a"], "a False True  0"),
        (["a", "--dry_run", "true"], "a True True  0"),
        (["a", "--dry-run"], "a True True  0"),
        (["--dry-run", "a"], "a True True  0"),
        (["--dry_run", "--no-keep", "a", "--names", "3"], "a True False  3"),
        (["a", "--no-dry-run", "--no_keep"], "a False False  0"),
        (["a", "--keep=false", "--add-metrics", "m.yaml"], "a False False m.yaml 0"),
        (["a", "--dry-run", "False"], "a False True  0"),
        (["other"], "other False True  0"),
    ],
)
def test_flags_and_names(words: list[str], result: str) -> None:
    assert run("work", *words) == result


def test_a_configuration_that_comes_along_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nano = str(config_root() / "train" / "nano.yaml")
    assert run("other", "--place", "configs/train/nano.yaml") == nano
    assert run("other", "--place=configs/train/nano.yaml") == nano
    assert run("other", "--place", "configs/train/none.yaml") == "configs/train/none.yaml"


@pytest.mark.parametrize("word", ["--add-metric", "--no-names", "--no-such", "--no-dry-run=true"])
def test_a_slip_is_named_as_typed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("work", "a", word)
    assert f"error: {word.partition('=')[0]}: no such argument" in capsys.readouterr().err

"""Every public data set through the importer, with every kind of bad row among the good ones."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from curation.datasets.cli import import_pairs
from curation.datasets.public import LAYOUTS
from curation.datasets.rows import LayoutOptions
from shards.reader import ShardSet
from shards.sample import tags_of
from tests.curation.datasets.bad_media import HEIGHT, INSTRUCTION, WIDTH, pixels, png, rows
from tests.curation.datasets.published_layouts import WRITERS, Edit

# A picture that is missing inside a table, rather than beside it, is not named at all.
INSIDE = {"anyedit", "blip3o_60k", "text_to_image_2m", "ultraedit"}


@functools.cache
def edits_of(kind: str) -> tuple[list[Edit], dict[str, int]]:
    return rows(kind)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_good_rows_become_samples_and_bad_ones_are_counted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "cache"))
    write, kind = WRITERS[name]
    edits, expected = edits_of(kind)
    write(tmp_path / "set", edits)
    out = tmp_path / "out"
    import_pairs(name, str(tmp_path / "set"), out=str(out), heldout=0.3, workers=0)
    summary = json.loads((out / "summary.json").read_text())
    expected = dict(expected)
    if name in INSIDE:
        expected["no file named"] = expected.pop("file missing")
    assert summary["refused"] == expected
    again = 2 if name == "imgedit" else 0  # its first two rows are there as turns besides
    assert summary["accepted"] == len(edits) + again - sum(expected.values())
    quarantine = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert len(quarantine) == sum(expected.values())
    samples = [record.sample for split in ("train", "heldout") for record in ShardSet(out, split)]
    assert len(samples) == summary["accepted"]
    for sample in samples:
        assert sample.provenance.clip.license == LAYOUTS[name](LayoutOptions()).license
        assert sample.provenance.clip.name.startswith(f"{name}/")
        assert any(step.stage == "import" and step.backend == name for step in sample.provenance.steps)
        assert "Remove the " in sample.text
        tags = tags_of(sample.text)
        assert set(tags) == set(sample.media) - {"mask"}
        assert sample.targets == tags[-1:]
        assert len(tags) > (kind != "captions" and sample.task != "text_to_image")


def test_odd_pictures_are_mended_and_said_to_be(tmp_path: Path) -> None:
    WRITERS["nhr_edit"][0](tmp_path / "set", edits_of("images")[0])
    import_pairs("nhr_edit", str(tmp_path / "set"), out=str(tmp_path / "out"), heldout=0, workers=0)
    pairs = {record.sample.text: record for record in ShardSet(tmp_path / "out", "train")}
    for what, words in (
        ("CMYK", "CMYK brought to RGB"),
        ("16 bits", "16 bits"),
        ("palette", "palette"),
        ("EXIF", ""),
    ):
        text = f"<image1> {INSTRUCTION.format(what)} <image2>"
        record = pairs[text]
        assert record.image("image1").shape == (HEIGHT, WIDTH, 3)
        assert words in " ".join(record.sample.provenance.clip.mended)
    shown = pairs[f"<image1> {INSTRUCTION.format('EXIF')} <image2>"]
    assert np.abs(shown.image("image1").astype(int) - pixels(3)).mean() < 8  # upright, but for JPEG


def test_turns_of_a_picture_are_in_one_split_and_the_second_names_the_first(tmp_path: Path) -> None:
    good = [Edit(INSTRUCTION.format(f"thing {i}"), png(i), png(i + 40)) for i in range(24)]
    WRITERS["magicbrush"][0](tmp_path / "set", good)
    import_pairs("magicbrush", str(tmp_path / "set"), out=str(tmp_path / "out"), heldout=0.5, workers=0)
    split_of: dict[str, set[str]] = {}
    keys: dict[str, str] = {}
    for split in ("train", "heldout"):
        for record in ShardSet(tmp_path / "out", split):
            name = record.sample.provenance.clip.name.removeprefix("magicbrush/")
            split_of.setdefault(name.partition("-")[0], set()).add(split)
            keys[name] = record.sample.key
    assert all(len(splits) == 1 for splits in split_of.values())
    assert set.union(*split_of.values()) == {"train", "heldout"}
    for split in ("train", "heldout"):
        for record in ShardSet(tmp_path / "out", split):
            picture, turn = record.sample.provenance.clip.name.removeprefix("magicbrush/").split("-")
            told = [step.backend for step in record.sample.provenance.steps if step.stage == "turn 2"]
            assert told == ([f"after {keys[f'{picture}-1']}"] if turn == "2" else [])


@pytest.mark.slow
def test_two_processes_make_the_same_bytes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "cache"))
    WRITERS["imgedit"][0](tmp_path / "set", edits_of("images")[0])
    for out, workers in (("one", 0), ("two", 2)):
        import_pairs("imgedit", str(tmp_path / "set"), out=str(tmp_path / out), workers=workers)
    assert (tmp_path / "one" / "manifest.jsonl").read_bytes() == (
        tmp_path / "two" / "manifest.jsonl"
    ).read_bytes()

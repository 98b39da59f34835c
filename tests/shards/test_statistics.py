"""What `shards stats` counts, and its plots."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards.columns import write_text_counts
from shards.reader import ShardSet
from shards.reports.plots import histogram, named_bars
from shards.reports.statistics import Distribution, statistics_of, write_statistics
from shards.scores import About, write_scores
from shards.writer import Item, write_shards

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def folder(tmp_path: Path, make_items: Callable[..., list[Item]]) -> str:
    """Four samples of 9 frames of 48x32 in several shards, with a grade that one lacks."""
    (tmp_path / "media").mkdir()
    items = make_items(tmp_path / "media", pairs=4, heldout=1, frames=9, height=32, width=48)
    write_shards(tmp_path / "shards", items, max_samples=2)
    write_scores(tmp_path / "shards", "grade", [1.0, 2.0, 4.0, math.nan], About(made_by="test"))
    return str(tmp_path / "shards")


def test_what_is_counted_is_what_the_samples_are(folder: str) -> None:
    found, shards = statistics_of([folder, folder]), ShardSet(folder)
    samples = [record.sample for record in shards]
    assert (found.samples, found.shards) == (8, 2 * len(shards.shards))
    assert found.bytes == 2 * sum(row.bytes for row in shards.rows)
    assert dict(found.splits) == {"train": 6, "heldout": 2}
    assert dict(found.sizes) == {"48x32": 8 * len(samples[0].media)}
    videos = [m for sample in samples for m in sample.media.values() if m.kind == "video"]
    assert dict(found.numbers["frames"].counts) == {9: 2 * len(videos)}
    assert dict(found.numbers["seconds"].counts) == {round(9 / (videos[0].fps or 0), 2): 2 * len(videos)}
    words = sorted(len([w for w in s.text.split() if not w.startswith("<")]) for s in samples)
    assert sorted(found.numbers["instruction_words"].counts.elements()) == sorted(words * 2)
    grade = found.scores["grade"]
    assert (grade["count"], grade["missing"], grade["min"], grade["max"]) == (6, 2, 1.0, 4.0)
    assert grade["mean"] == pytest.approx(7 / 3)
    assert grade["quantiles"]["0.5"] == 2.0
    assert sum(grade["histogram"]["counts"]) == 6


def test_text_tokens_are_counted_where_a_tokenizer_did(folder: str) -> None:
    assert statistics_of([folder]).numbers["text_tokens"].missing == 4
    columns, sizes = ShardSet(folder).columns, ShardSet(folder).counts()
    write_text_counts(columns, "f" * 64, [np.full(size, 7, np.uint32) for size in sizes])
    assert dict(statistics_of([folder]).numbers["text_tokens"].counts) == {7: 4}


def test_a_distribution_sums_up_as_its_values_do() -> None:
    values = np.random.default_rng(0).integers(0, 50, 1000).astype(float)
    one = Distribution()
    one.counts.update(values.tolist())
    summary = one.summary()
    assert summary["mean"] == pytest.approx(values.mean())
    for share, value in summary["quantiles"].items():
        assert value == np.quantile(values, float(share), method="inverted_cdf")
    assert sum(summary["histogram"]["counts"]) == 1000
    assert Distribution().summary() == {"unit": "", "count": 0, "missing": 0}


def test_plots_are_svg_whose_bars_are_the_counts() -> None:
    drawn = ElementTree.fromstring(histogram("a <b> & c", [0.0, 1.0, 2.0, 3.0], [1, 0, 2]))
    heights = [float(bar.get("height", "0")) for bar in drawn.iter(f"{SVG}rect")]
    assert heights[0] * 2 == pytest.approx(heights[2])
    assert heights[1] == 0
    assert drawn.get("aria-label") == "a <b> & c"
    drawn = ElementTree.fromstring(named_bars("names", [("<one>", 4), ("two", 1)]))
    widths = [float(bar.get("width", "0")) for bar in drawn.iter(f"{SVG}rect")]
    assert widths[0] == pytest.approx(widths[1] * 4, rel=0.01)


def test_the_page_and_the_numbers_lie_beside_the_plots(folder: str, tmp_path: Path) -> None:
    write_statistics(statistics_of([folder]), tmp_path / "out")
    value = json.loads((tmp_path / "out/stats.json").read_text())
    assert value["samples"] == 4
    assert value["scores"]["grade"]["count"] == 3
    page = (tmp_path / "out/stats.html").read_text()
    plots = list((tmp_path / "out").glob("*.svg"))
    assert page.count("<svg") == len(plots) > 5
    for path in plots:
        ElementTree.parse(path)
    assert "src=" not in page
    assert "https://" not in page

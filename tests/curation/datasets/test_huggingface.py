"""Data sets for the Hub: shards as they were, and a card that huggingface_hub and `datasets` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import webdataset
from huggingface_hub import DatasetCard

from curation.datasets.exporters.census import hub_license
from curation.datasets.exporters.exporter import ExportError
from curation.datasets.exporters.huggingface import export_huggingface
from curation.datasets.exporters.shapes import as_feature, merge
from shards.reader import ShardSet
from shards.verify import verify
from tests.curation.datasets.pairs import image_items, video_items, write_folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two shard folders."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "media").mkdir()
    write_folder(folder / "shards/films", video_items(folder / "media"))
    write_folder(folder / "shards/photos", image_items(folder / "media"))
    return folder / "shards"


def fields(features: list[dict[str, Any]], *path: str) -> dict[str, Any]:
    """The columns, or the fields of a struct in them, by name."""
    for name in path:
        (features,) = (feature["struct"] for feature in features if feature["name"] == name)
    return {feature["name"]: feature.get("dtype") for feature in features}


def test_the_shards_stay_what_they_were(sets: Path, tmp_path: Path) -> None:
    summary = export_huggingface(sets / "films", tmp_path / "hub")
    assert (summary.samples, summary.tasks["object_removal"]) == (7, 3)
    ours, theirs = ShardSet(sets / "films"), ShardSet(tmp_path / "hub")
    assert [record.sample for record in theirs] == [record.sample for record in ours]
    assert verify(tmp_path / "hub").faults == []
    tar = "train-000000.tar"
    assert (tmp_path / "hub" / tar).samefile(sets / "films" / tar)  # no second copy
    read = webdataset.WebDataset(str(tmp_path / "hub" / tar), shardshuffle=False).decode()
    assert {sample["__key__"] for sample in read} <= set(ours.keys)
    only = export_huggingface(sets / "films", tmp_path / "train", split="train")
    assert (only.samples, ShardSet(tmp_path / "train").keys) == (6, ShardSet(sets / "films", "train").keys)


def test_the_card_counts_and_has_the_columns_of_all_samples(sets: Path, tmp_path: Path) -> None:
    export_huggingface(sets, tmp_path / "hub", name="Small edits")
    card = DatasetCard.load(tmp_path / "hub/README.md")
    assert card.data.pretty_name == "Small edits"
    assert card.data.license == ["cc-by-4.0", "cc0-1.0"]
    assert card.data.size_categories == "n<1K"
    assert card.data.task_categories == ["image-to-image", "text-to-image", "text-to-video", "video-to-video"]
    films, photos = card.data.configs
    assert films["data_files"] == [
        {"split": "train", "path": "films/train-*.tar"},
        {"split": "heldout", "path": "films/heldout-*.tar"},
    ]
    assert photos["config_name"] == "photos"
    (features,) = (info["features"] for info in card.data.dataset_info if info["config_name"] == "films")
    # Of all samples, though the first five lack some.
    columns = {"json", "image1.png", "mask.mkv", "video1.mp4", "video2.mp4", "__key__", "__url__"}
    assert set(fields(features)) == columns
    assert (fields(features)["mask.mkv"], fields(features)["image1.png"]) == ("video", "image")
    assert fields(features, "json", "scores") == {"aesthetics": "string", "sharpness": "float64"}
    assert fields(features, "json", "media", "video1")["fps"] == "float64"
    assert "| films | object_removal | 2 | 1 | mask (2), video1, video2 | 15 | 2 |" in card.text
    assert "| CC-BY-4.0 | 9 |" in card.text
    assert "| edit | test | painter |  | 10 |" in card.text


def test_it_goes_on_and_leaves_other_folders_alone(sets: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, rows: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        export_huggingface(sets, tmp_path / "hub", progress=stop)
    assert not (tmp_path / "hub/README.md").exists()
    assert export_huggingface(sets, tmp_path / "hub").samples == 10
    card = (tmp_path / "hub/README.md").read_bytes()
    assert export_huggingface(sets, tmp_path / "hub").samples == 10
    assert (tmp_path / "hub/README.md").read_bytes() == card
    with pytest.raises(ExportError, match=r"holds another export \(source, manifest differ\)"):
        export_huggingface(sets / "films", tmp_path / "hub")
    with pytest.raises(ExportError, match=r"no manifest\.jsonl here or in its folders"):
        export_huggingface(tmp_path, tmp_path / "other")


def test_to_a_url(sets: Path) -> None:
    url = f"memory://{sets.parent.name}"
    assert export_huggingface(sets / "photos", url).samples == 3
    assert ShardSet(url).keys == ShardSet(sets / "photos").keys


@pytest.mark.parametrize(
    ("words", "identifier"),
    [
        ("Apache-2.0 (as stated by the package; the recording's owner is not named)", "apache-2.0"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("cc-by-nc", "other"),  # of which version nobody says
        ("all rights reserved", "other"),
        ("unknown", "unknown"),
    ],
)
def test_licences_get_the_names_of_the_hub(words: str, identifier: str) -> None:
    assert hub_license(words) == identifier


def test_the_type_of_documents_is_what_all_of_them_need() -> None:
    shape = None
    for document in ({"a": 1, "b": [{"c": None}]}, {"a": 0.5, "b": [{"c": "x", "d": True}]}, {"e": []}):
        shape = merge(shape, document)
    assert as_feature("json", shape) == {
        "name": "json",
        "struct": [
            {"name": "a", "dtype": "float64"},
            {"name": "b", "list": [{"name": "c", "dtype": "string"}, {"name": "d", "dtype": "bool"}]},
            {"name": "e", "list": "string"},
        ],
    }

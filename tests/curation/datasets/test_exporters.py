"""Exports, read by csv, json, pyarrow, PIL, tarfile and tomllib; and what is said of what they lack."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from curation.datasets.exporters.command import export, format_of
from curation.datasets.exporters.exporter import Choice, ExportError, Summary, export_pairs
from shards.errors import SettingError
from shards.reader import ShardSet
from shards.scores import About, write_scores
from tests.curation.datasets.pairs import image_items, pictures, square, video_items, write_folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    return write_folder(folder / "shards", video_items(folder))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    return write_folder(folder / "shards", image_items(folder))


def run(name: str, shards: Path, out: Path, table: Any = "jsonl", **choice: Any) -> Summary:
    return export_pairs(format_of(name, table), shards, out, Choice(**choice))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_removal_and_addition_of_one_pair_are_two_rows_the_other_way_round(
    videos: Path, tmp_path: Path
) -> None:
    summary = run("table", videos, tmp_path / "out", table="csv")
    rows = {row["id"]: row for row in cells(tmp_path / "out/metadata.csv")}
    removal, addition = rows["dog-removal"], rows["dog-addition"]
    assert (removal["task"], removal["instruction"]) == ("object_removal", "Remove the dog.")
    assert (addition["task"], addition["instruction"]) == ("object_addition", "Add a dog on the left.")
    data = {
        role: [(tmp_path / "out" / row[role]).read_bytes() for row in (removal, addition)]
        for role in ("source", "target")
    }
    assert data["source"] == data["target"][::-1]
    assert (removal["license"], removal["caption_target"], removal["score_sharpness"]) == (
        "CC-BY-4.0",
        "A lawn.",
        "0.75",
    )
    assert removal["score_aesthetics"] == addition["score_aesthetics"] == ""
    # A reference is a column of its own; what the text says inside is put into words.
    assert rows["propagated"]["instruction"] == "edit the video following the first frame."
    assert Image.open(tmp_path / "out" / rows["propagated"]["reference_1"]).size == (48, 32)
    assert rows["masked"]["instruction"] == "Remove what the mask marks."
    assert (summary.rows, summary.skipped, summary.reworded) == (5, {"no source": 1}, 2)
    assert summary.left_out == {}  # a table of one's own holds all


def test_media_are_copied_as_they_are(videos: Path, tmp_path: Path) -> None:
    run("folder", videos, tmp_path / "out", tasks=("object_removal",))
    record = ShardSet(videos)["dog-removal"]
    assert (tmp_path / "out/dog-removal.mp4").read_bytes() == record.bytes("video1")
    assert (tmp_path / "out/dog-removal_edited.mp4").read_bytes() == record.bytes("video2")
    assert (tmp_path / "out/dog-removal_mask.mkv").read_bytes() == record.bytes("mask")
    assert (tmp_path / "out/dog-removal.txt").read_text() == "Remove the dog.\n"
    assert "kept.mp4" not in files(tmp_path / "out")  # held out


def test_what_a_format_has_no_place_for_is_counted(videos: Path, images: Path, tmp_path: Path) -> None:
    summary = run("musubi", videos, tmp_path / "musubi")
    assert summary.skipped == {"more than one source": 1, "no source": 1, "text speaks of the mask": 1}
    assert summary.left_out == {"captions": 1, "license": 3, "mask": 2, "origin": 3, "scores": 2, "task": 3}
    assert summary.tasks == {"object_addition": 1, "object_removal": 1, "style_transfer": 1}
    assert summary.licenses == {"CC-BY-4.0": 2, "CC0-1.0 (rendered)": 1}
    summary = run("omniedit", images, tmp_path / "omniedit")
    assert summary.left_out == {"captions": 1, "license": 2, "mask": 1, "origin": 2}  # grades, tasks are held
    assert (
        json.loads((tmp_path / "omniedit/export.yaml").read_text())["summary"]["left_out"] == summary.left_out
    )
    summary = run("folder", videos, tmp_path / "unmasked", masks=False)
    assert summary.skipped["text speaks of the mask"] == 1
    assert summary.left_out["mask"] == 2


def test_the_trainers_tables(videos: Path, images: Path, tmp_path: Path) -> None:
    run("diffsynth", images, tmp_path / "diffsynth")
    table = cells(tmp_path / "diffsynth/metadata.csv")
    assert [list(row) for row in table] == [["image", "edit_image", "prompt"]] * 2
    assert table[0]["prompt"] == 'Give the cat a "red" hat, please: \u00fc.'
    run("diffsynth", videos, tmp_path / "wan")
    # Rows with and without a mask have other columns, so they are two tables: no cell may be empty there.
    assert [row["vace_video"] for row in cells(tmp_path / "wan/metadata_video.csv")] == ["source/style.mp4"]
    masked = cells(tmp_path / "wan/metadata_video_mask.csv")
    assert {row["vace_video_mask"] for row in masked} == {
        f"mask/{key}.mkv" for key in ("dog-addition", "dog-removal", "masked")
    }
    run("musubi", videos, tmp_path / "musubi")
    config = tomllib.loads((tmp_path / "musubi/dataset.toml").read_text())
    assert [data["video_jsonl_file"] for data in config["datasets"]] == [
        str(tmp_path / "musubi/metadata.jsonl")
    ]
    for row in lines(tmp_path / "musubi/metadata.jsonl"):  # paths that hold wherever it is started
        assert Path(row["video_path"]).is_file()
        assert Path(row["control_path"]).name == Path(row["video_path"]).name
    run("ai_toolkit", videos, tmp_path / "ai", tasks=("propagation", "style_transfer"))
    assert files(tmp_path / "ai") - {"export.yaml"} == {
        *(f"{folder}/{key}.mp4" for folder in ("target", "control") for key in ("style", "propagated")),
        *("target/style.txt", "target/propagated.txt", "control_2/propagated.png"),
    }
    run("ltx", videos, tmp_path / "ltx", masks=False)
    assert {tuple(row) for row in lines(tmp_path / "ltx/dataset.jsonl")} == {
        ("caption", "video", "reference_video")
    }


def test_parquets_hold_pictures(images: Path, videos: Path, tmp_path: Path) -> None:
    def table(folder: Path) -> list[dict[str, Any]]:
        found = sorted(folder.rglob("*.parquet"))
        return [row for path in found for row in pyarrow.parquet.read_table(path).to_pylist()]

    def picture(data: bytes, mode: str = "RGB") -> np.ndarray:
        return np.array(Image.open(io.BytesIO(data)).convert(mode))

    run("bagel", images, tmp_path / "bagel")
    rows = table(tmp_path / "bagel")
    assert [row["instruction_list"] for row in rows][1] == [["Let it snow."]]
    assert (picture(rows[1]["image_list"][1]) == pictures(23, 1)[0]).all()
    run("magicbrush", images, tmp_path / "magicbrush")
    first, second = table(tmp_path / "magicbrush")
    assert (first["img_id"], first["turn_index"], second["mask_img"]) == ("cat-hat", 1, None)
    alpha = picture(first["mask_img"]["bytes"], "RGBA")[..., 3]
    assert ((alpha == 0) == square(1)[0]).all()  # transparent where the edit is
    run("omniedit", images, tmp_path / "omniedit")
    first, second = table(tmp_path / "omniedit")
    assert (first["task"], first["pq_score"], first["o_score"], first["sc_score_1"]) == (
        "addition",
        8.5,
        None,
        None,
    )
    assert (second["task"], second["edited_prompt_list"], second["width"]) == ("style", ["Let it snow."], 48)
    run("ultraedit", images, tmp_path / "ultraedit")
    first, _ = table(tmp_path / "ultraedit")
    assert ((picture(first["mask_image"]["bytes"], "L") > 127) == square(1)[0]).all()
    assert first["source_caption"] == "A cat."
    run("lance", videos, tmp_path / "lance", tasks=("style_transfer",))
    (row,) = table(tmp_path / "lance")
    assert row["output_video_bytes"] == ShardSet(videos)["style"].bytes("video2")
    run("table", videos, tmp_path / "table", table="parquet")
    rows = table(tmp_path / "table")  # of two shards, which agree about the columns
    assert {row["id"]: row["score_sharpness"] for row in rows}["dog-addition"] == 0.25
    assert len({tuple(row) for row in rows}) == 1


def test_tables_beside_tars(images: Path, tmp_path: Path) -> None:
    run("sharegpt_4o_image", images, tmp_path / "sharegpt")
    rows = json.loads((tmp_path / "sharegpt/text_and_image_to_image.json").read_text("utf-8"))
    names = set()
    for tar in (tmp_path / "sharegpt").glob("*.tar"):
        with tarfile.open(tar) as opened:
            names |= set(opened.getnames())
    assert {name for row in rows for name in (*row["input_image"], row["output_image"])} == names
    run("text_to_image_2m", images, tmp_path / "t2i")
    (tar,) = (tmp_path / "t2i").glob("*.tar")
    with tarfile.open(tar) as opened:
        assert opened.getnames() == ["poster.png", "poster.txt"]
        assert opened.extractfile("poster.txt").read() == b"A poster of a boat."  # type: ignore[union-attr]


def test_scores_that_are_stored_choose(videos: Path, tmp_path: Path) -> None:
    keys = ShardSet(videos).keys
    values = [{"style": 0.9, "dog-removal": 0.8, "kept": 1.0}.get(key, np.nan) for key in keys]
    write_scores(videos, "liked", values, About(made_by="test"))
    summary = run("folder", videos, tmp_path / "a", min_scores={"liked": 0.85})
    assert (summary.rows, summary.tasks) == (1, {"style_transfer": 1})  # not of null, nor of another split
    assert run("folder", videos, tmp_path / "b", min_scores={"liked": 0.5, "sharpness": 0.5}).rows == 1
    with pytest.raises(SettingError, match=r"--tasks cooking: no sample has it; there are object_addition"):
        run("folder", videos, tmp_path / "c", tasks=("cooking",))
    assert not (tmp_path / "c").exists()


def test_an_export_that_was_broken_off_goes_on(videos: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, rows: int) -> None:
        if done == 2:
            raise Stop

    whole, out = tmp_path / "whole", tmp_path / "out"
    run("ltx", videos, whole)
    with pytest.raises(Stop):
        export_pairs(format_of("ltx"), videos, out, progress=stop)
    assert not list(out.glob("*.jsonl"))  # tables come last
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert written
    run("ltx", videos, out)
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())  # not done again
    assert {n: (out / n).read_bytes() for n in files(out)} == {
        n: (whole / n).read_bytes() for n in files(whole)
    }
    before = (out / "export.yaml").stat().st_mtime_ns
    assert run("ltx", videos, out).rows == 4  # it is finished: nothing is written
    assert (out / "export.yaml").stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_left_alone(videos: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is not empty and no earlier export"):
        run("folder", videos, tmp_path / "mine")
    assert files(tmp_path / "mine") == {"thesis.txt"}
    run("folder", videos, tmp_path / "out")
    with pytest.raises(ExportError, match=r"holds another export \(format, table differ\)"):
        run("diffsynth", videos, tmp_path / "out")
    with pytest.raises(ExportError, match=r"holds another export \(source, manifest differ\)"):
        run("folder", images, tmp_path / "out")
    with pytest.raises(ExportError, match=r"no sample fits magicbrush \(video as target: 6\)"):
        run("magicbrush", videos, tmp_path / "none")
    assert files(tmp_path / "none") == set()
    with pytest.raises(SettingError, match="musibi: no such format; did you mean musubi"):
        format_of("musibi")
    with pytest.raises(SettingError, match="--table csv: goes with the format table"):
        format_of("musubi", "csv")


def test_the_command_says_what_it_wrote(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export("diffsynth", str(videos), str(tmp_path / "out"), masks=False)
    said = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "diffsynth: 3 rows of 3 samples" in said
    assert "not written: text speaks of the mask 1" in said
    assert "without its mask, for which diffsynth has no place 2" in said
    assert "metadata.csv" in said
    with pytest.raises(SettingError, match="huggingface takes shards as they are"):
        export("huggingface", str(videos), str(tmp_path / "hub"), tasks=["style_transfer"])

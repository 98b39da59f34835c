"""Every own layout, written by an independent writer with every bad row, and what an import makes of it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from curation.__main__ import main
from shards.reader import ShardSet
from shards.verify import verify
from tests.curation.datasets.bad_rows import Case, expected, image_cases, picture, video, video_cases

Cases = tuple[Case, ...]


def write_files(cases: Cases, folder: Path) -> list[dict[str, str]]:
    """The files of the cases; the rows of a table that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases:
        row = {"instruction": case.instruction}
        for role, data in (("source", case.source), ("target", case.target)):
            row[role] = f"{case.name}_{role}{case.suffix}"
            if data is not None:
                (folder / row[role]).write_bytes(data)
        rows.append(row)
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """A table with the columns of its first row."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """A row a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def renamed(rows: list[dict[str, str]], **names: str) -> list[dict[str, str]]:
    """The rows under other columns."""
    return [{names[role]: value for role, value in row.items()} for row in rows]


def table_csv(cases: Cases, folder: Path) -> list[str]:
    """Columns of any name."""
    rows = renamed(write_files(cases, folder), source="before", target="after", instruction="what to do")
    write_csv(folder / "pairs.csv", rows)
    return [
        "table",
        str(folder / "pairs.csv"),
        "--columns",
        "source=before,target=after,instruction=what to do",
    ]


def table_parquet(cases: Cases, folder: Path) -> list[str]:
    """Bytes in the table, as Hugging Face's `datasets` writes images; row groups of three."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {
            "source": {"bytes": case.source, "path": f"{case.name}{case.suffix}"},
            "target": {"bytes": case.target, "path": f"absent{case.suffix}"},
            "instruction": case.instruction,
        }
        for case in cases
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "0.parquet", row_group_size=3)
    return ["table", str(folder)]


def folder(cases: Cases, folder: Path) -> list[str]:
    """`a.png`, `a_edited.png`, `a.txt`."""
    folder.mkdir(parents=True)
    for case in cases:
        for name, data in ((case.name, case.source), (f"{case.name}_edited", case.target)):
            if data is not None:
                (folder / f"{name}{case.suffix}").write_bytes(data)
        (folder / f"{case.name}.txt").write_text(case.instruction)
    return ["folder", str(folder)]


def diffsynth(cases: Cases, folder: Path) -> list[str]:
    """`metadata.csv` with `prompt` and the columns of `--data_file_keys`."""
    kind = "video" if cases[0].suffix == ".mp4" else "image"
    rows = renamed(write_files(cases, folder), source=f"edit_{kind}", target=kind, instruction="prompt")
    write_csv(folder / "metadata.csv", rows)
    return ["diffsynth", str(folder / "metadata.csv")]


def musubi(cases: Cases, folder: Path) -> list[str]:
    """JSONL with absolute paths."""
    kind = "video" if cases[0].suffix == ".mp4" else "image"
    rows = renamed(
        write_files(cases, folder), source="control_path", target=f"{kind}_path", instruction="caption"
    )
    for row in rows:
        for name in ("control_path", f"{kind}_path"):
            row[name] = str(folder / row[name])
    write_jsonl(folder / "data.jsonl", rows)
    return ["musubi", str(folder / "data.jsonl")]


def ai_toolkit(cases: Cases, folder: Path) -> list[str]:
    """`control/a.png`, `target/a.png`, `target/a.txt`."""
    for case in cases:
        for part, data in (("control", case.source), ("target", case.target)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            if data is not None:
                (folder / part / f"{case.name}{case.suffix}").write_bytes(data)
        (folder / "target" / f"{case.name}.txt").write_text(case.instruction)
    return ["ai_toolkit", str(folder)]


def ltx(cases: Cases, folder: Path) -> list[str]:
    """A JSON list."""
    rows = renamed(
        write_files(cases, folder), source="reference_path", target="media_path", instruction="caption"
    )
    (folder / "dataset.json").write_text(json.dumps(rows))
    return ["ltx", str(folder / "dataset.json")]


def bagel(cases: Cases, folder: Path) -> list[str]:
    """`image_list` and `instruction_list`."""
    folder.mkdir(parents=True)
    rows = [
        {"image_list": [case.source, case.target], "instruction_list": [[case.instruction, "other words"]]}
        for case in cases
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "0.parquet")
    return ["bagel", str(folder)]


WRITERS = (table_csv, table_parquet, folder, diffsynth, musubi, ai_toolkit, ltx, bagel)


def run(*words: str) -> dict[str, Any]:
    """An import in this process; what it says."""
    out = words[words.index("--out") + 1]
    status = call("import", *words, "--workers", "0")
    assert status == 0
    summary: dict[str, Any] = json.loads((Path(out) / "summary.json").read_text())
    return summary


def call(*words: str) -> int:
    """The command in this process; its status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["python -m curation", *words])
        return main()


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_bad_rows_are_counted_and_the_rest_goes_on(write: Callable[..., list[str]], tmp_path: Path) -> None:
    cases = image_cases()
    words = write(cases, tmp_path / "in")
    summary = run(*words, "--out", str(tmp_path / "out"))
    wanted = Counter(expected(cases))
    name = write.__name__
    if name == "bagel":  # a cell without bytes, and one with none
        wanted["no file named"] = wanted.pop("file missing")
    if name == "table_parquet":  # an empty cell has a path, where nothing is
        wanted["file missing"] += wanted.pop("file empty")
    if name == "ai_toolkit":  # what has no target is no row: its folder is what is listed
        del wanted["file missing"]
        assert summary["rows"] == len(cases) - 1
    else:
        assert summary["rows"] == len(cases)
    assert summary["refused"] == dict(wanted)
    samples = ShardSet(tmp_path / "out")
    good = [case for case in cases if not case.reason]
    assert len(samples) == len(good) == summary["accepted"]
    assert not verify(tmp_path / "out").faults
    mended = [" ".join(samples[key].sample.provenance.clip.mended) for key in samples.keys]
    for case in good:
        assert not case.mended or any(case.mended in words for words in mended), case.name
    quarantine = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert Counter(row["reason"] for row in quarantine) == wanted


@pytest.mark.parametrize("write", [folder, diffsynth], ids=lambda write: write.__name__)
def test_pairs_of_videos_are_brought_into_step(write: Callable[..., list[str]], tmp_path: Path) -> None:
    cases = video_cases()
    summary = run(
        *write(cases, tmp_path / "in"), "--out", str(tmp_path / "out"), "--derive", "reversal,propagation"
    )
    assert summary["refused"] == expected(cases)
    good = [case for case in cases if not case.reason]
    assert summary["samples"]["propagation"].keys() <= {"train", "heldout"}
    assert sum(summary["samples"]["propagation"].values()) == len(good)
    assert sum(summary["samples"]["video_editing"].values()) == 2 * len(good)
    assert not verify(tmp_path / "out").faults
    samples = ShardSet(tmp_path / "out")
    for key in samples.keys:
        media = samples[key].sample.media
        assert media["video1"].frames == media["video2"].frames
        assert media["video1"].fps == media["video2"].fps
    given = [samples[key] for key in samples.keys if not key.endswith(("-r", "-p"))]
    names = {record.sample.provenance.clip.name: record for record in given}
    if write is folder:  # of 20 frames a second every second one, from the first on
        shown = names["folder/other_rate"].pixels("video2", 3, 4)[0].astype(int)
        drawn = [np.roll(np.asarray(picture(4)), n, axis=1).astype(int) for n in range(20)]
        assert int(np.argmin([np.abs(shown - one).mean() for one in drawn])) == 6
    said = {mended for key in samples.keys for mended in samples[key].sample.provenance.clip.mended}
    for case in good:
        assert not case.mended or any(case.mended in words for words in said), case.name


def test_a_pair_is_what_was_written(tmp_path: Path) -> None:
    run(
        *table_csv(image_cases()[:1], tmp_path / "in"), "--out", str(tmp_path / "out"), "--license", "CC0-1.0"
    )
    samples = ShardSet(tmp_path / "out")
    (key,) = samples.keys
    record = samples[key]
    assert record.sample.text == "<image1> Remove the red ball on the left. <image2>"
    assert record.sample.targets == ["image2"]
    assert record.sample.provenance.clip.license == "CC0-1.0"
    assert record.sample.provenance.clip.name == "table/pairs.csv:0"
    assert [step.stage for step in record.sample.provenance.steps] == ["import"]
    for number, name in ((1, "image1"), (2, "image2")):
        assert np.array_equal(record.pixels(name)[0], np.asarray(picture(number)))


def test_pictures_mean_what_they_show(tmp_path: Path) -> None:
    """16 bits keep their upper eight, a quarter turn is made, white lies under what is transparent."""
    cases = {case.name: case for case in image_cases()}
    chosen = tuple(cases[name] for name in ("deep", "turned", "palette", "cmyk"))
    run(*table_csv(chosen, tmp_path / "in"), "--out", str(tmp_path / "out"))
    samples = ShardSet(tmp_path / "out")
    of_row = {
        samples[key].sample.provenance.clip.name[-1]: samples[key].pixels("image1")[0] for key in samples.keys
    }
    deep = (np.arange(32 * 48) * 40 >> 8).reshape(32, 48)
    assert np.array_equal(of_row["0"][..., 0], deep)
    turned = np.abs(of_row["1"].astype(int) - np.asarray(picture(5)).astype(int))
    assert turned.mean() < 8  # JPEG; the other way up it is 60
    indices = np.asarray(picture(4).quantize(16))
    assert (of_row["2"][indices == 0] == 255).all()
    assert np.abs(of_row["3"].astype(int) - np.asarray(picture(10)).astype(int)).mean() < 8


def test_all_edits_of_a_source_are_in_one_split_and_the_way_back_too(tmp_path: Path) -> None:
    rows = []
    files = tmp_path / "in"
    files.mkdir()
    for source in range(12):
        picture(source).save(files / f"{source}.png")
        for edit in range(3):
            picture(100 + 3 * source + edit).save(files / f"{source}_{edit}.png")
            names = {"source": f"{source}.png", "target": f"{source}_{edit}.png"}
            said = {"before": "a head", "after": "a head with a red hat"}
            rows.append({**names, "instruction": "Add a red hat.", **said})
    write_csv(files / "pairs.csv", rows)
    (tmp_path / "mapping.yaml").write_text("captions: {source: before, target: after}\n")
    words = ("table", str(files / "pairs.csv"), "--heldout", "0.4", "--derive", "reversal")
    words += ("--mapping", str(tmp_path / "mapping.yaml"))
    summary = run(*words, "--out", str(tmp_path / "out"))
    assert summary["accepted"] == 36
    split_of: dict[str, set[str]] = {}
    texts = set()
    samples = ShardSet(tmp_path / "out")
    for key in samples.keys:
        sample = samples[key].sample
        split_of.setdefault(sample.provenance.clip.sha256, set()).add(sample.split)
        if sample.key.endswith("-r"):
            texts.add(sample.text)
            assert sample.captions == {"source": "a head with a red hat", "target": "a head"}
    assert len(split_of) == 12
    assert all(len(splits) == 1 for splits in split_of.values())
    assert set.union(*split_of.values()) == {"train", "heldout"}
    assert all("the red hat" in text and "video" not in text for text in texts)
    assert len(samples) == 72


def test_the_same_rows_elsewhere_and_in_two_tables(tmp_path: Path) -> None:
    """Keys follow from the rows alone; a row that two files have is taken once."""
    for place in ("here", "there"):
        rows = write_files(image_cases()[:2], tmp_path / place)
        named = [{**row, "number": str(n)} for n, row in enumerate(rows)]
        write_csv(tmp_path / place / "a.csv", named)
        write_csv(tmp_path / place / "b.csv", named[1:])
    words = ("--columns", "id=number")
    for place in ("here", "there"):
        summary = run("table", str(tmp_path / place), *words, "--out", str(tmp_path / f"{place}_out"))
        assert summary["accepted"] == 2
        assert summary["refused"] == {"row there twice": 1}
    keys = [ShardSet(tmp_path / f"{place}_out").keys for place in ("here", "there")]
    assert list(keys[0]) == list(keys[1])


def test_going_on_and_trying_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = folder(image_cases(), tmp_path / "in")
    out = str(tmp_path / "out")
    first = run(*words, "--out", out)
    before = (tmp_path / "out/manifest.jsonl").read_bytes()
    assert run(*words, "--out", out)["accepted"] == first["accepted"]
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == before
    assert call("import", *words, "--out", out, "--workers", "0", "--heldout", "0.5") == 2
    assert "holds an import of another mapping, or by other rules" in capsys.readouterr().err
    picture(20).save(tmp_path / "in/no_image.png")
    assert run(*words, "--out", out, "--retry")["accepted"] == first["accepted"] + 1
    assert not verify(out).faults
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("keep me")
    assert call("import", *words, "--out", str(tmp_path / "mine"), "--workers", "0") == 2
    assert "is not empty and holds no import" in capsys.readouterr().err


def test_damaged_tables_and_wrong_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, source = table_parquet(image_cases()[:3], tmp_path / "in")
    whole = (tmp_path / "in/0.parquet").read_bytes()
    (tmp_path / "in/1.parquet").write_bytes(whole[: len(whole) // 2])  # half downloaded
    summary = run("table", source, "--out", str(tmp_path / "out"))
    assert (summary["accepted"], summary["refused"]) == (3, {"file damaged": 1})
    assert call("import", "table", source, "--out", str(tmp_path / "b"), "--columns", "target=after") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no column 'after', which the mapping names for target, but source, target, instruction" in error
    (tmp_path / "rows.jsonl").write_text(
        '{"source": "a.png", "target": "b.png", "instruction": "x"}\n{half\n[]\n'
    )
    assert (
        call("import", "table", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "c"), "--workers", "0")
        == 2
    )
    error = capsys.readouterr().err
    assert "none of 3 rows was accepted" in error
    assert "1 not a line of JSON" in error
    assert call("import", "tables", source, "--out", str(tmp_path / "d")) == 2
    assert "no such format; did you mean table?" in capsys.readouterr().err


def test_masks_scores_and_steps(tmp_path: Path) -> None:
    """What a mapping in YAML may name beside the pair; a chain of edits is one row a step."""
    files = tmp_path / "in"
    rows = write_files(image_cases()[:2], files)
    mask = np.zeros((32, 48), np.uint8)
    mask[:8] = 255
    picture(1).convert("L").point(lambda _: 0).save(files / "none.png")
    Image.fromarray(mask).save(files / "mask.png")
    kinds = ("removal", "other")
    write_csv(
        files / "t.csv",
        [
            {**row, "m": name, "kind": kind, "q": score, "rights": "MIT"}
            for row, name, kind, score in zip(rows, ("mask.png", "none.png"), kinds, ("7.5", ""), strict=True)
        ],
    )
    (tmp_path / "map.yaml").write_text(
        "mask: m\ntask: kind\ntasks: {removal: object_removal, other: image_editing}\n"
        "scores: {quality: q}\nlicense: rights\n"
    )
    run(
        "table", str(files / "t.csv"), "--mapping", str(tmp_path / "map.yaml"), "--out", str(tmp_path / "out")
    )
    samples = ShardSet(tmp_path / "out")
    found = {record.sample.task: record for record in (samples[key] for key in samples.keys)}
    assert np.array_equal(found["object_removal"].mask()[0], mask > 0)
    assert found["object_removal"].sample.scores == {"quality": 7.5}
    assert found["object_removal"].sample.provenance.clip.license == "MIT"
    assert found["image_editing"].sample.scores == {"quality": None}
    assert "mask" not in found["image_editing"].sample.media
    chain = [image_cases()[0].source, image_cases()[0].target, image_cases()[1].source]
    table = pyarrow.Table.from_pylist(
        [{"image_list": chain, "instruction_list": [["Go left."], ["Go right."]]}]
    )
    pyarrow.parquet.write_table(table, tmp_path / "chain.parquet")
    run("bagel", str(tmp_path / "chain.parquet"), "--out", str(tmp_path / "steps"))
    steps = ShardSet(tmp_path / "steps")
    texts = sorted(steps[key].sample.text for key in steps.keys)
    assert texts == ["<image1> Go left. <image2>", "<image1> Go right. <image2>"]


def test_a_table_at_a_url_and_texts_without_a_source(tmp_path: Path) -> None:
    """Any URL of fsspec; rows without a source are text to image."""
    rows = write_files(image_cases()[:2], tmp_path / "in")
    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "in").iterdir():
        memory.pipe(f"/importing/{path.name}", path.read_bytes())
    text = "".join(
        json.dumps({"target": row["target"], "caption": row["instruction"]}) + "\n" for row in rows
    )
    memory.pipe("/importing/t.jsonl", text.encode())
    (tmp_path / "map.yaml").write_text("source: null\ninstruction: caption\n")
    summary = run(
        *("table", "memory://importing/t.jsonl", "--mapping", str(tmp_path / "map.yaml")),
        *("--out", str(tmp_path / "out"), "--heldout", "0"),
    )
    assert summary["samples"] == {"text_to_image": {"train": 2}}


def test_long_videos_are_cut_and_made_smaller(tmp_path: Path) -> None:
    case = Case("long", video(1, 20, height=62, width=94), video(2, 20, height=62, width=94), ".mp4")
    run(
        *folder((case,), tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--frames",
        "7",
        "--max_area",
        "2048",
    )
    samples = ShardSet(tmp_path / "out")
    media = samples[samples.keys[0]].sample.media["video2"]
    assert (media.frames, media.height, media.width) == (7, 36, 54)

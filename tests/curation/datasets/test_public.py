"""The public data sets, each read from its published layout as an independent writer makes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from curation.datasets.layouts import records
from curation.datasets.layouts.archives import MemberIndex, find_archives
from curation.datasets.layouts.listing import list_sizes
from curation.datasets.layouts.mapping import value_of
from curation.datasets.layouts.public import LAYOUTS
from curation.datasets.layouts.records import columns_of, cut, read
from curation.datasets.layouts.rows import BadRow, EditRow, LayoutOptions
from shards.errors import SettingError
from shards.location import ShardError
from tests.curation.datasets.published_layouts import WRITERS, Edit, dump, put, sheet, table, tar_of

# What a reader hands on are bytes that it does not look at: these need not be pictures.
EDITS = [
    Edit(
        f"Remove the {thing}, and say “done”.",
        bytes([i + 1]) * (900 + i),
        bytes([i + 101]) * (1100 + i),
        mask=b"mask" if i == 0 else None,
        reference=bytes([77]) * 50,
    )
    for i, thing in enumerate(("dog", "car", "tree", "kite"))
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "cache"))


def rows_of(name: str, source: str | Path, **mapping: object) -> list[EditRow | BadRow]:
    """All rows of a data set; a part that cannot be read is a BadRow of its fault, as the importer has it."""
    layout = LAYOUTS[name](LayoutOptions(mapping))
    found: list[EditRow | BadRow] = []
    for part in layout.parts(str(source)):
        if part.fault:
            found.append(BadRow(part.name, "part", part.fault))
            continue
        part = type(part)(**{**vars(part), "about": json.loads(json.dumps(dict(part.about)))})
        found += LAYOUTS[name](LayoutOptions(mapping)).rows(part)  # as another process reads it
    return found


def good(rows: Sequence[EditRow | BadRow]) -> list[EditRow]:
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert not bad
    return [row for row in rows if isinstance(row, EditRow)]


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_published_layout_is_read_byte_for_byte(name: str, tmp_path: Path) -> None:
    write, kind = WRITERS[name]
    write(tmp_path / "set", EDITS)
    rows = good(rows_of(name, tmp_path / "set"))
    assert len({row.identity for row in rows}) == len(rows)
    by_text = {row.instruction: row for row in rows}
    assert set(by_text) == {edit.instruction for edit in EDITS}
    for number, edit in enumerate(EDITS):
        row = by_text[edit.instruction]
        assert row.target.read() == edit.target
        captioned = kind == "captions" or (name == "sharegpt_4o_image" and number == 3)
        expected = [] if captioned else [edit.source]
        if name in ("refvie", "anyedit"):
            expected.append(edit.reference)
        assert [blob.read() for blob in row.sources] == expected
        if name in ("magicbrush", "ultraedit"):
            assert (row.mask.read() if row.mask else None) == edit.mask
    assert LAYOUTS[name](LayoutOptions()).license


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("omniedit", "object_removal"),
        ("reco", "object_removal"),
        ("senorita", "object_removal"),
        ("nhr_edit", "object_removal"),
        ("ditto", "style_transfer"),
        ("refvie", "reference_video_editing"),
        ("anyedit", "image_editing"),  # its visual kinds, however they are called
        ("magicbrush", ""),
    ],
)
def test_tasks_are_ours(name: str, task: str, tmp_path: Path) -> None:
    WRITERS[name][0](tmp_path, EDITS)
    assert {row.task for row in good(rows_of(name, tmp_path))} == {task}


def test_turns_of_a_picture_name_the_turn_before_and_stay_together(tmp_path: Path) -> None:
    WRITERS["magicbrush"][0](tmp_path / "brush", EDITS)
    rows = good(rows_of("magicbrush", tmp_path / "brush"))
    assert [(row.identity, row.turn, row.parent) for row in rows] == [
        ("100-1", 1, None),
        ("100-2", 2, "100-1"),
        ("101-1", 1, None),
        ("101-2", 2, "101-1"),
    ]
    assert rows[0].group == rows[1].group != rows[2].group
    WRITERS["imgedit"][0](tmp_path / "imgedit", EDITS)
    turns = [row for row in good(rows_of("imgedit", tmp_path / "imgedit")) if row.group]
    assert [row.turn for row in turns] == [1, 2]
    assert [row.parent for row in turns] == [None, turns[0].identity]


def test_published_grades_become_scores_and_what_is_no_number_is_none(tmp_path: Path) -> None:
    WRITERS["omniedit"][0](tmp_path, [EDITS[0], Edit("Remove it.", b"s", b"t", scores={"sc": float("nan")})])
    first, second = good(rows_of("omniedit", tmp_path))
    assert first.scores == {"sc_1": 9.0, "sc_2": 8.0, "pq": 7.0, "overall": 7.5}
    assert second.scores["sc_1"] is None


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_row_whose_file_is_missing_costs_itself_alone(name: str, tmp_path: Path) -> None:
    write, kind = WRITERS[name]
    lost = EDITS[2]
    lacks = {"target": None} if kind == "captions" else {"source": None}
    write(tmp_path, [*EDITS[:2], Edit(**{**vars(lost), **lacks}), EDITS[3]])
    rows = rows_of(name, tmp_path)
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert len(bad) == 1
    assert bad[0].reason in ("file missing", "no file named")
    assert {row.instruction for row in rows if isinstance(row, EditRow)} == {
        edit.instruction for edit in EDITS if edit is not lost
    }


@pytest.mark.parametrize("name", ["anyedit", "ditto", "reco", "nhr_edit", "text_to_image_2m"])
def test_other_columns_are_refused_in_one_line_or_row_by_row(name: str, tmp_path: Path) -> None:
    WRITERS[name][0](tmp_path, EDITS)
    if name == "text_to_image_2m":  # a sample's columns are its files: there is no table to look at first
        assert {row.reason for row in rows_of(name, tmp_path, target="gif") if isinstance(row, BadRow)} == {
            "no file named"
        }
        return
    with pytest.raises(
        SettingError, match=r"has the columns .*the mapping names nothing_such for target"
    ) as error:
        rows_of(name, tmp_path, target="nothing_such")
    assert "\n" not in str(error.value)
    assert "write a mapping" in str(error.value)


def test_one_table_of_other_columns_does_not_stop_the_others(tmp_path: Path) -> None:
    WRITERS["omniedit"][0](tmp_path, EDITS)
    table(tmp_path / "data" / "a-first.parquet", [{"left": b"1", "right": b"2"}])
    rows = rows_of("omniedit", tmp_path)
    assert [row.detail for row in rows if isinstance(row, BadRow)] == [
        "data/a-first.parquet: has the columns left, right, but the mapping names edited_prompt_list[-1] for "
        "instruction; write a mapping for it"
    ]
    assert len(rows) == 1 + len(EDITS)


def test_a_half_downloaded_parquet_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    WRITERS["omniedit"][0](tmp_path, EDITS)
    whole = tmp_path / "data" / "train-00000-of-00571.parquet"
    (tmp_path / "data" / "train-00001-of-00571.parquet").write_bytes(whole.read_bytes()[:-100])
    rows = rows_of("omniedit", tmp_path)
    (bad,) = (row for row in rows if isinstance(row, BadRow))
    assert "train-00001-of-00571.parquet: no whole parquet file" in bad.detail
    assert "download it again" in bad.detail
    assert len(rows) == 1 + len(EDITS)


@pytest.mark.parametrize("lost", ["first", "middle", "last"])
def test_a_split_archive_without_one_of_its_volumes_gives_what_it_still_has(
    lost: str, tmp_path: Path
) -> None:
    WRITERS["imgedit"][0](tmp_path, EDITS)
    volumes = sorted((tmp_path / "Singleturn").iterdir())
    gone = {"first": volumes[0], "middle": volumes[4], "last": volumes[-1]}[lost]
    gone.unlink()
    rows = [row for row in rows_of("imgedit", tmp_path) if not (isinstance(row, EditRow) and row.group)]
    bad = [row for row in rows if isinstance(row, BadRow)]
    if lost == "last":  # what is gone are zeros after the members; every picture is there
        assert len(rows) == 4
        assert len(bad) <= 1
        return
    assert {row.reason for row in bad} == {"in a part of an archive that is missing"}
    assert all(gone.name in row.detail for row in bad)
    assert len(bad) == (4 if lost == "first" else 3)


def test_volumes_are_one_file_wherever_they_are_cut(tmp_path: Path) -> None:
    files = {f"a/{i}.png": bytes([i]) * (300 * i + 1) for i in range(9)}
    data = tar_of(dict(files))
    for size in (511, 512, 777, 4096, len(data)):
        folder = tmp_path / str(size)
        for volume in range(-(-len(data) // size)):
            letters = "abcdefghijklmnopqrstuvwxyz"
            name = f"x.tar.{letters[volume // 26]}{letters[volume % 26]}"
            put(folder, name, data[volume * size : (volume + 1) * size])
        index = MemberIndex(find_archives(list_sizes(str(folder), ["*.tar*"]), str(folder)))
        assert index.faults == []
        for name, content in files.items():
            blob = index.find(name)
            assert blob is not None
            assert blob.read() == content
        assert index.find("a/10.png") is None


def test_an_archive_that_is_compressed_as_a_whole_says_so(tmp_path: Path) -> None:
    WRITERS["sharegpt_4o_image"][0](tmp_path, EDITS)
    (tmp_path / "part_0.tar").rename(tmp_path / "part_0.tar.gz")
    bad = [row for row in rows_of("sharegpt_4o_image", tmp_path) if isinstance(row, BadRow)]
    assert bad
    assert all("part_0.tar.gz is compressed as a whole: unpack it" in row.detail for row in bad)


def test_a_path_that_leads_out_of_the_data_set_is_no_path(tmp_path: Path) -> None:
    put(tmp_path, "secret.mp4", b"secret")
    names = ("src_video", "tar_video", "instruction_final_refine")
    for outside in ("../secret.mp4", str(tmp_path / "secret.mp4"), "https://a.b/c.mp4"):
        dump(
            tmp_path / "set" / "add_data_configs.json",
            [dict(zip(names, (outside, outside, "Remove it."), strict=True))],
        )
        (row,) = rows_of("reco", tmp_path / "set")
        assert isinstance(row, BadRow)
        assert row.reason == "path leads out of the data set"


def test_a_store_is_read_like_a_folder(tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("omniedit", "imgedit", "nhr_edit", "blip3o_60k"):
        WRITERS[name][0](tmp_path / name, EDITS)
        store.put(str(tmp_path / name), f"/public/{name}", recursive=True)
        there = good(rows_of(name, f"memory://public/{name}"))
        here = good(rows_of(name, tmp_path / name))
        assert [(row.identity, row.instruction) for row in there] == [
            (row.identity, row.instruction) for row in here
        ]
        assert [row.target.read() for row in there] == [row.target.read() for row in here]


def test_one_file_of_a_data_set_is_a_source(tmp_path: Path) -> None:
    WRITERS["omniedit"][0](tmp_path, EDITS)
    WRITERS["blip3o_60k"][0](tmp_path, EDITS)
    assert len(good(rows_of("omniedit", tmp_path / "data" / "train-00000-of-00571.parquet"))) == 4
    assert len(good(rows_of("blip3o_60k", tmp_path / "sft_0.tar"))) == 4
    with pytest.raises(SettingError, match="no such folder"):
        rows_of("omniedit", tmp_path / "none")
    with pytest.raises(SettingError, match="no magicbrush: none of data/"):
        rows_of("magicbrush", Path(__file__).parent)


# ---- tables -----------------------------------------------------------------------------------------------

RECORDS = [
    {"a": f"row {i}", "b": 'a "quoted", text; {with} [brackets]\nand a line', "c": "\\" * i}
    for i in range(23)
]


def write_records(path: Path) -> None:
    if path.suffix == ".parquet":
        table(path, RECORDS, group=9)
    elif path.suffix == ".jsonl":
        put(path.parent, path.name, "".join(json.dumps(r) + "\n\n" for r in RECORDS).encode())
    elif path.suffix == ".json":
        dump(path, {str(i): record for i, record in enumerate(RECORDS)} if "keys" in path.name else RECORDS)
    else:
        sheet(path, list(RECORDS[0]), [list(record.values()) for record in RECORDS])


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.json", "keys.json", "t.csv"])
@pytest.mark.parametrize("rows", [1, 4, 512])
def test_a_table_in_stretches_is_the_table(
    name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BLOCK", 97)  # JSON texts go on from one block to the next everywhere
    path = tmp_path / name
    write_records(path)
    assert columns_of(str(path)) == ["a", "b", "c"]
    stretches = list(cut(str(path), rows))
    if rows == 1:
        assert len(stretches) == len(RECORDS)
    found = [item for stretch in reversed(stretches) for item in read(str(path), stretch)]
    assert sorted(found, key=lambda item: item[0]) == list(enumerate(RECORDS))


@pytest.mark.parametrize("name", ["t.json", "t.parquet"])
def test_a_table_that_ends_early_is_refused(name: str, tmp_path: Path) -> None:
    write_records(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ShardError, match="download it again"):
        list(cut(str(tmp_path / name)))


def test_a_bad_line_costs_itself_alone(tmp_path: Path) -> None:
    put(tmp_path, "t.jsonl", b'{"a": 1}\n{"a": \n[1]\n{"a": 2}\n')
    put(tmp_path, "t.csv", b"a,b\n1,2\n3\n\xff,4\n5,6\n")
    for name, faults in (
        ("t.jsonl", ["not a line of JSON", "not a JSON object"]),
        ("t.csv", ["wrong number of cells", "not UTF-8"]),
    ):
        (stretch,) = cut(str(tmp_path / name))
        _, first, second, _ = (record for _, record in read(str(tmp_path / name), stretch))
        assert [row.reason for row in (first, second) if isinstance(row, BadRow)] == faults


def test_names_go_on_into_what_a_column_holds() -> None:
    record = {"image": ["a", "b", "c"], "talk": [{"value": "x"}, {"value": "y"}], "none": None}
    assert value_of(record, ("image[:-1]",)) == ["a", "b"]
    assert value_of(record, ("image[-1]",)) == "c"
    assert value_of(record, ("talk[1].value",)) == "y"
    assert value_of(record, ("lacks?", "talk[0].value")) == "x"
    assert value_of(record, ("none",)) is None


def test_the_page_of_data_sets_says_what_the_mappings_say() -> None:
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    for name in LAYOUTS:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.split("|")[3].strip() == LAYOUTS[name](LayoutOptions()).license

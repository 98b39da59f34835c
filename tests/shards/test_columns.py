"""Columns: what the indexes say, made once, made again where they are damaged, refused where nobody can."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.column_writer import cache_folder, open_columns
from shards.columns import Columns, ColumnsError, header_seal, write_text_counts
from shards.index import IndexEntry, ShardIndex, StoredEntry, write_index
from shards.location import ShardError
from shards.manifest import ManifestRow, read_manifest, write_manifest
from shards.reader import ShardSet
from shards.sample import SUFFIX
from shards.verify import verify
from shards.writer import Item, write_shards

NAMES = ("video1", "video2", "video99", "image1", "image12", "mask", "mask0", "mask00", "mask7")


@st.composite
def entries(draw: Any, key: str, split: str) -> tuple[StoredEntry, int]:
    """An entry whose members begin somewhere, and the blocks that they take."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    media, fps, frame_of = {}, {}, {}
    for name in names:
        kind = name.rstrip("0123456789")
        size = draw(st.sampled_from([(16, 32), (480, 640), (16384, 1)]))
        frames = 1 if kind == "image" else draw(st.integers(1, 1 << 20))
        media[name] = (kind, frames, *size)
        if kind != "image" and draw(st.booleans()):
            fps[name] = draw(st.floats(0.1, 1000))
        elif kind == "image" and draw(st.booleans()):
            frame_of[name] = ("video1", draw(st.integers(0, 9)))
    order = draw(st.permutations(names))
    words = draw(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=6, max_size=6)
    )
    text = "".join(f"{word.replace('<', '')}<{name}>" for word, name in zip(words, order, strict=False))
    members, block = {}, 0
    for suffix in ["json", *(name + SUFFIX[media[name][0]] for name in names)]:
        size = draw(st.integers(1, 2000))
        members[suffix] = ((block + 1) * 512, size)
        block += 1 + -(-size // 512)
    entry = StoredEntry(
        key=key,
        split=split,
        task=draw(st.sampled_from(["edit", "remove"])),
        text=text + draw(st.sampled_from(["", "\n", "<mask", " ü"])),
        targets=draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)),
        media=dict(sorted(media.items())),
        frame_of=frame_of,
        fps=fps,
        members=members,
        tokens=1,
        json_sha256=draw(st.sampled_from([None, hashlib.sha256(key.encode()).hexdigest()])),
    )
    return entry, block


@st.composite
def indexes(draw: Any) -> list[ShardIndex]:
    """Indexes of some shards of two splits, with members one after the other."""
    result = []
    for number, split in enumerate(
        draw(st.lists(st.sampled_from(["heldout", "train"]), min_size=1, max_size=4))
    ):
        samples, block = [], 0
        for i in range(draw(st.integers(0, 4))):
            entry, blocks = draw(entries(f"key-{number}-{i}", split))
            members = {s: (offset + 512 * block, size) for s, (offset, size) in entry.members.items()}
            samples.append(entry.model_copy(update={"members": members}))
            block += blocks
        result.append(ShardIndex(shard=f"{split}-{number:06d}.tar", sha256=f"{number:064x}", samples=samples))
    return result


def write_folder(folder: Path, given: list[ShardIndex]) -> None:
    folder.mkdir()
    rows = [
        ManifestRow(
            shard=index.shard,
            sha256=index.sha256,
            samples=len(index.samples),
            bytes=1,
            index_sha256=write_index(folder, index),
        )
        for index in given
    ]
    write_manifest(folder, rows)


@settings(max_examples=25, deadline=None)
@given(indexes())
def test_columns_say_what_the_indexes_say(given: list[ShardIndex]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "shards"
        write_folder(folder, given)
        columns = open_columns(folder)
        ordered = sorted(given, key=lambda index: index.shard)
        assert [name.decode() for name in columns.names] == [index.shard for index in ordered]
        for number, index in enumerate(ordered):
            end = 0
            assert columns.keys(number) == [entry.key for entry in index.samples]
            for place, entry in enumerate(index.samples):
                plain = {name: getattr(entry, name) for name in IndexEntry.model_fields}
                assert columns.entry(number, place) == IndexEntry(**plain)
                first, last, document = columns.stored(number, place)
                places = entry.members.values()
                assert first * 512 == min(offset for offset, _ in places) - 512 == end
                end = last * 512
                assert end == max(offset + -(-size // 512) * 512 for offset, size in places)
                assert f"{document:016x}" == (entry.json_sha256 or "0" * 16)[:16]
            counted = Counter((e.task, e.split, "<mask" in e.text) for e in index.samples)
            for label, count in zip(columns.labels, columns.counts[number].tolist(), strict=True):
                assert counted[label.task, label.split, label.masked] == count


def columns_of(folder: Path) -> Path:
    (found,) = folder.glob("columns-*")
    return found


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def other_version(path: Path) -> None:
    header = json.loads(path.read_text()) | {"version": 99}
    path.write_text(json.dumps(header | {"header_sha256": header_seal(header)}))


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("columns.json", cut, "columns.json: not JSON"),
        ("columns.json", other_version, "of version 99, this is 1"),
        ("columns.json", Path.unlink, "columns.json: missing"),
        ("shards.npy", cut, "shards.npy: damaged"),
        ("kind.npy", cut, "kind.npy: damaged"),
        ("text.npy", cut, "text.npy: damaged"),
        ("place.npy", to_pipe, "place.npy: missing, or no file"),
    ],
)
def test_what_is_not_whole_is_made_again(
    shard_dir: Path,
    name: str,
    damage: Callable[[Path], None],
    complaint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, keys = {p.name: p.read_bytes() for p in columns_of(shard_dir).iterdir()}, ShardSet(shard_dir).keys
    damage(columns_of(shard_dir) / name)
    assert any(complaint in fault for fault in verify(shard_dir, decode=False).faults)
    with caplog.at_level("WARNING", "shards.column_writer"):
        assert ShardSet(shard_dir).keys == keys
    (record,) = caplog.records
    assert complaint in record.getMessage()
    assert "made again" in record.getMessage()
    assert {p.name: p.read_bytes() for p in columns_of(shard_dir).iterdir()} == before
    assert verify(shard_dir, decode=False).faults == []


def test_flipped_bits_are_noticed_or_harmless(shard_dir: Path) -> None:
    truth, rng = [record.sample for record in ShardSet(shard_dir)], random.Random(0)
    refused: list[str] = []
    files = sorted(columns_of(shard_dir).iterdir())
    for _ in range(150):
        path = rng.choice(files)
        good = bytearray(path.read_bytes())
        bad = good.copy()
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        try:
            shards = ShardSet(shard_dir)
            assert [record.sample for record in shards] == truth
            assert [shards.entry(i).key for i in range(4)] == [sample.key for sample in truth]
        except ColumnsError as error:
            refused.append(str(error))
        path.write_bytes(good)
    assert len(refused) > 10
    assert {len(line.splitlines()) for line in refused} == {1}
    assert all(str(columns_of(shard_dir)) in line for line in refused)


def test_damage_that_is_met_later_says_what_to_do(shard_dir: Path) -> None:
    folder, data = columns_of(shard_dir), bytearray((columns_of(shard_dir) / "kind.npy").read_bytes())
    data[-1] ^= 1  # of the last shard, train-000001
    (folder / "kind.npy").write_bytes(data)
    shards = ShardSet(shard_dir)
    assert shards.entry(0).split == "heldout"
    with pytest.raises(ColumnsError, match=r"kind damaged where train-000001.tar is; remove the folder"):
        shards.entry(3)
    shutil.rmtree(folder)
    assert ShardSet(shard_dir).entry(3).split == "train"


def _open(folder: Path, start: Any, results: Any) -> None:
    start.wait()
    results.put(ShardSet(folder).keys)


def test_processes_that_open_an_old_folder_at_once(shard_dir: Path) -> None:
    keys = ShardSet(shard_dir).keys
    shutil.rmtree(columns_of(shard_dir))
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.SimpleQueue()
    children = [context.Process(target=_open, args=(shard_dir, start, results)) for _ in range(4)]
    for child in children:
        child.start()
    assert [results.get() for _ in children] == [keys] * 4
    for child in children:
        child.join()
    columns_of(shard_dir)
    assert not list(shard_dir.glob(".*"))


def _open_as_nobody(folder: Path, results: Any) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    results.put((ShardSet(folder).keys, str(ShardSet(folder).columns.folder)))


def test_a_folder_that_cannot_be_written_to(shard_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ShardSet(shard_dir).keys
    shutil.rmtree(columns_of(shard_dir))
    with tempfile.TemporaryDirectory() as scratch:
        monkeypatch.setenv("XDG_CACHE_HOME", f"{scratch}/cache")
        shutil.copytree(shard_dir, Path(scratch) / "shards")
        (Path(scratch) / "cache").mkdir()
        for path, mode in (("", 0o755), ("cache", 0o777), ("shards", 0o555)):
            (Path(scratch) / path).chmod(mode)
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        child = context.Process(target=_open_as_nobody, args=(Path(scratch) / "shards", results))
        child.start()
        there, place = results.get()
        child.join()
        assert there == keys
        assert place.startswith(str(cache_folder()))
        (Path(scratch) / "shards").chmod(0o755)


def test_a_folder_that_changes_gets_columns_of_its_own(
    shard_dir: Path, tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    opened, older = ShardSet(shard_dir), columns_of(shard_dir)
    (tmp_path / "more").mkdir()
    write_shards(shard_dir, make_items(tmp_path / "more", pairs=5), max_samples=2)
    assert columns_of(shard_dir) != older
    assert len(ShardSet(shard_dir)) == 5
    assert opened.columns.kinds(0).tolist() == [0]  # what is mapped stays


def test_what_a_sample_says_is_read_without_its_media(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    items = make_items(tmp_path, pairs=3, height=16, width=16, heldout=0)
    for _, files in items:
        for path in files.values():
            path.write_bytes(random.Random(str(path)).randbytes(200_000))
    write_shards(tmp_path / "shards", items)
    shards = ShardSet(tmp_path / "shards")
    for number in range(3):
        assert shards.sample(number) == shards[number].sample
        for suffix, (offset, size) in shards.members(number).items():
            if suffix != "json":
                data = shards[number].bytes(suffix.partition(".")[0])
                assert shards.location.read("train-000000.tar", offset, size) == data
    path = tmp_path / "shards" / "train-000000.tar"
    offset, size = shards.members(1)["mask.mkv"]
    path.write_bytes(path.read_bytes()[: offset + size - 5])
    assert shards.sample(1).key == shards.keys[1]
    with pytest.raises(ShardError, match=r"truncated .* inside"):
        shards[1]


def test_texts_are_counted_by_tokenizer(shard_dir: Path) -> None:
    columns, tokenizer = open_columns(shard_dir), "a" * 64
    assert columns.text_count(tokenizer, 0, 0) is None
    sizes = [row.samples for row in read_manifest(shard_dir)]
    write_text_counts(columns, tokenizer, (np.arange(n, dtype="<u4") + 7 for n in sizes))
    again = open_columns(shard_dir)
    assert [again.text_count(tokenizer, 1, i) for i in range(2)] == [7, 8]
    assert again.text_count("b" * 64, 1, 0) is None
    path = columns.folder / f"tokens-{tokenizer[:16]}.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    again = Columns(columns.folder, json.loads((columns.folder / "columns.json").read_text())["manifest"])
    assert again.text_count(tokenizer, 1, 0) == 7
    with pytest.raises(ColumnsError, match=f"tokens-{tokenizer[:16]} damaged where train-000001"):
        again.text_count(tokenizer, 2, 0)

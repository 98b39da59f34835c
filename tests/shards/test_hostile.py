"""Shard folders and tars made to mislead: one line each, nothing large allocated, no waiting."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.index import rebuild
from shards.location import Location, ShardError
from shards.manifest import read_manifest
from shards.reader import ShardSet, stream
from shards.sample import Sample
from shards.tar import TarReader
from shards.verify import verify
from shards.writer import Item, write_shards


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    scratch = tmp_path_factory.mktemp("hostile")
    write_shards(scratch / "shards", make_items(scratch, frames=2, height=16, width=16), max_samples=2)
    return scratch / "shards"


@pytest.fixture
def shard_dir(original: Path, tmp_path: Path) -> Path:
    """A copy of a small shard folder: 3 samples to train on and 1 held out."""
    shutil.copytree(original, tmp_path / "shards")
    return tmp_path / "shards"


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)
TARS = {
    "8 GiB in a small file": (header("a.json", 8 << 30), "truncated inside 'a.json'"),
    "2^80 bytes": (header("a.json", 1 << 80), "truncated inside"),
    "a negative size": (header("a.json", -1), "a size of -1 bytes"),
    "a name of 1 GiB": (header("@", 1 << 30, tarfile.GNUTYPE_LONGNAME), "1073741824 bytes"),
    "a link": (header("a.json", 0, tarfile.SYMTYPE) + END, "'a.json' is not a regular file"),
    "a folder": (header("a", 0, tarfile.DIRTYPE) + END, "not a regular file"),
    "a sparse file": (header("a.json", 0, tarfile.GNUTYPE_SPARSE) + END, "not a regular file"),
    "a sparse pax file": (
        header("@", 29, tarfile.XHDTYPE) + b"29 GNU.sparse.realsize=99999\n".ljust(512, b"\0") + END,
        "sparse file",
    ),
    "no pax record": (header("@", 6, tarfile.XHDTYPE) + b"99 a=\n".ljust(512, b"\0"), "not a pax header"),
    "a pax size": (
        header("@", 12, tarfile.XHDTYPE) + b"12 size=-10\n".ljust(512, b"\0") + header("a.json", 0) + END,
        "a size that is no number",
    ),
    "names without a member": (
        2000 * (header("@", 1, tarfile.GNUTYPE_LONGNAME) + b"x".ljust(512, b"\0")) + END,
        "truncated after an extension",
    ),
    "a line break in a name": (header("a\nb/c.json", 0) + END, r"'a\nb/c.json'"),
    "nothing": (b"", "truncated"),
    "data after the end": (END + b"x" * 512, "only zeros may follow the last member"),
}


@pytest.mark.parametrize("name", TARS)
def test_headers_are_not_believed(name: str, tmp_path: Path) -> None:
    data, complaint = TARS[name]
    (tmp_path / "train-000000.tar").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ShardError) as caught:
        rebuild(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert complaint in str(caught.value)
    assert "train-000000.tar" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert peak < 64 << 20


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_other_writers_are_read(layout: int) -> None:
    names = ["a.json", "ä" * 40 + ".json" if layout != tarfile.USTAR_FORMAT else "b.json", "k" * 99 + ".png"]
    if layout == tarfile.USTAR_FORMAT:
        names.pop()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 600 * number, 1.5  # type: ignore[assignment]
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    reader = TarReader(io.BytesIO(out.getvalue()), "x.tar")
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        expected = [(m.name, m.offset_data, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    assert [(m.name, m.offset, m.data) for m in reader] == expected
    assert reader.bytes == len(out.getvalue())


def rows_of(folder: Path) -> list[dict]:
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "manifest_sha256"} for line in lines]


ROWS = {
    "twice": (lambda rows: [*rows, rows[0]], "a second time"),
    "above the folder": (lambda rows: [rows[0] | {"shard": "../a.tar"}], "leaves the folder"),
    "two dots": (lambda rows: [rows[0] | {"shard": ".."}], "does not end in .tar|leaves the folder"),
    "absolute": (lambda rows: [rows[0] | {"shard": "/etc/a.tar"}], "leaves the folder"),
    "a line break": (lambda rows: [rows[0] | {"shard": "a\nb.tar"}], "leaves the folder"),
    "null": (lambda rows: [rows[0] | {"shard": "a\0.tar"}], "leaves the folder"),
    "empty": (lambda rows: [rows[0] | {"shard": ""}], "leaves the folder|does not end in .tar"),
    "negative": (lambda rows: [rows[0] | {"bytes": -1}], "bytes: "),
    "enormous": (lambda rows: [rows[0] | {"samples": 10**300}], "samples: "),
    "more samples": (lambda rows: [rows[0] | {"samples": 7}], "the manifest promises 7"),
    "a long name of a field": (lambda rows: [rows[0] | {"a\n" * 10000: 1}], r"a\\na\\n"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_manifest_is_not_believed(shard_dir: Path, name: str) -> None:
    change, complaint = ROWS[name]
    lines = [json.dumps(row) for row in change(rows_of(shard_dir))]
    (shard_dir / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ShardError, match=complaint) as caught:
        ShardSet(shard_dir)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["manifest.jsonl", "train-000000.index.json"])
@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"\0", b"\n\n", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b'"\\ud800"']
)
def test_documents_that_are_none(shard_dir: Path, name: str, data: bytes) -> None:
    (shard_dir / name).write_bytes(data)
    shutil.rmtree(next(shard_dir.glob("columns-*")))  # which are made from the index
    for read in (ShardSet, lambda folder: list(stream(folder))):
        with pytest.raises(ShardError, match=name) as caught:
            read(shard_dir)
        assert len(str(caught.value).splitlines()) == 1
    if name != "manifest.jsonl":
        assert verify(shard_dir, decode=False).faults


def to_folder(path: Path) -> None:
    path.mkdir()


def to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["manifest.jsonl", "train-000000.index.json", "train-000000.tar"])
@pytest.mark.parametrize("make", [os.mkfifo, to_folder, to_device])
def test_what_is_no_file_is_not_read(shard_dir: Path, name: str, make: Callable[[Path], None]) -> None:
    (shard_dir / name).unlink()
    make(shard_dir / name)
    shutil.rmtree(next(shard_dir.glob("columns-*")))
    for read in (
        lambda folder: ShardSet(folder, "train")[0].bytes("video1"),
        lambda folder: list(stream(folder)),
    ):
        with pytest.raises(ShardError, match=rf"{name}: not a regular file"):
            read(shard_dir)


ENTRIES = {
    "negative": ("video1.mp4", [-512, 10], "greater than or equal"),
    "beyond the end": ("mask.mkv", [1 << 40, 10], "not side by side"),
    "a size beyond the end": ("mask.mkv", [2048, 1 << 40], "damaged where"),
    "no JSON": ("json", None, "not side by side"),
    "no video": ("video1.mp4", None, "media and members of .* disagree"),
    "another place": ("json", [2048, 100], "damaged where"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_index_is_not_believed(shard_dir: Path, name: str) -> None:
    suffix, place, complaint = ENTRIES[name]
    path = shard_dir / "train-000000.index.json"
    index = json.loads(path.read_text())
    members = index["samples"][0]["members"]
    if place is None:
        del members[suffix]
    else:
        members[suffix] = place
    path.write_text(json.dumps(index))
    rows = [{k: v for k, v in row.items() if k != "index_sha256"} for row in rows_of(shard_dir)]
    (shard_dir / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ShardError, match=complaint):
        [ShardSet(shard_dir, "train")[0].bytes(name) for name in ("video1", "mask")]


def test_keys_that_are_there_twice(tmp_path: Path, make_items: Callable[..., list[Item]]) -> None:
    items = make_items(tmp_path, pairs=2, frames=1, height=16, width=16, heldout=0)
    other: Sample = items[0][0].model_copy(update={"split": "heldout"})
    write_shards(tmp_path / "out", [*items, (other, items[0][1])])
    with pytest.raises(ShardError, match="is there twice"):
        ShardSet(tmp_path / "out")
    with pytest.raises(ShardError, match=r"is also in heldout-000000\.tar"):
        rebuild(tmp_path / "out")
    assert len(ShardSet(tmp_path / "out", "train")) == 2


def test_an_element_that_no_size_fits(tmp_path: Path, make_items: Callable[..., list[Item]]) -> None:
    sample, files = make_items(tmp_path, pairs=1, frames=1, height=16, width=16, heldout=0)[0]
    thin = {name: m.model_copy(update={"height": 1, "width": 16000}) for name, m in sample.media.items()}
    with pytest.raises(ValueError, match="no size like 16000x1") as caught:
        write_shards(tmp_path / "out", [(sample.model_copy(update={"media": thin}), files)])
    assert sample.key in str(caught.value)


@pytest.mark.parametrize("name", ["a:b", "c:", "s3:", "x::y"])
def test_a_colon_is_no_protocol(
    shard_dir: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_dir.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for folder in (name, Path(name), f"{name}//", tmp_path / name):
        assert len(ShardSet(folder)) == 4
        assert not Location(folder).remote
    assert not Location("c://data").remote
    assert not Location("data/s3://bucket").remote
    assert Location("simplecache::s3://bucket/data").remote


def test_a_url_as_a_path_is_refused() -> None:
    with pytest.raises(ShardError, match=r"s3:/bucket/data: a URL given as a Path.*give it as a string"):
        ShardSet(Path("s3://bucket/data"))
    with pytest.raises(ShardError, match=r"null|not the name"):
        read_manifest("a\0b")


def test_names_are_not_taken_for_urls(shard_dir: Path) -> None:
    (shard_dir / "x::https:").mkdir()
    with pytest.raises(FileNotFoundError):
        Location(shard_dir.as_uri()).read("x::memory:a")

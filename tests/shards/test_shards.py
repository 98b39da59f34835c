"""Writing, reading, indexing and proving shards, through the public entry points and the command."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from shards.index import TokenGeometry, read_index, rebuild
from shards.location import ShardError
from shards.manifest import read_manifest
from shards.media import read_video
from shards.reader import ShardSet, stream
from shards.sample import SampleError
from shards.verify import verify
from shards.writer import Item, write_shards


def files_of(directory: Path) -> dict[str, bytes]:
    files = [p for p in sorted(directory.rglob("*")) if p.is_file()]
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def command(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shards", *map(str, args)], capture_output=True, text=True, timeout=120
    )


def test_plain_webdataset_reads_a_shard(shard_dir: Path) -> None:
    paths = sorted(str(p) for p in shard_dir.glob("*.tar"))
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == ShardSet(shard_dir).keys
    for sample in samples:
        assert set(sample["json"]["media"]) == {"video1", "video2", "mask"}
        assert read_video(sample["video1.mp4"])[0].shape == (9, 64, 96, 3)


def test_stream_and_index_give_the_same_samples(shard_dir: Path) -> None:
    streamed, opened = list(stream(shard_dir)), ShardSet(shard_dir)
    assert [r.key for r in streamed] == opened.keys
    for a, b in zip(streamed, opened, strict=True):
        assert a.sample == b.sample
        assert all(a.bytes(n) == b.bytes(n) for n in a.sample.media)
    assert len(ShardSet(shard_dir, "train")) == 3
    assert len(ShardSet(shard_dir, "heldout")) == 1
    last = opened[opened.keys[-1]]
    assert last.key == opened[len(opened) - 1].key
    assert last.mask().shape == (9, 64, 96)
    assert last.pixels("mask").shape == (9, 64, 96, 3)


def test_same_samples_give_the_same_bytes_in_any_order(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    items = make_items(tmp_path, pairs=5)
    write_shards(tmp_path / "a", items, max_samples=2)
    write_shards(tmp_path / "b", items[::-1], max_samples=2)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    (tmp_path / "again").mkdir()
    again = make_items(tmp_path / "again", pairs=5)
    write_shards(tmp_path / "c", again, max_samples=2)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "c")


def test_shards_are_cut_by_samples_and_by_bytes(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    items = make_items(tmp_path, pairs=5, heldout=0)
    assert [r.samples for r in write_shards(tmp_path / "a", items, max_samples=2)] == [2, 2, 1]
    assert [r.samples for r in write_shards(tmp_path / "b", items, max_bytes=1)] == [1] * 5
    rows = write_shards(tmp_path / "a", items)  # packs again: the shards no longer written go
    assert [r.samples for r in rows] == [5]
    assert sorted(p.name for p in (tmp_path / "a").glob("*.tar")) == ["train-000000.tar"]


def test_index_and_columns_are_rebuilt_as_they_were(shard_dir: Path) -> None:
    before = files_of(shard_dir)
    assert sum("columns-" in name for name in before) == 9
    for path in [*shard_dir.glob("*.json*"), *shard_dir.glob("columns-*/*")]:
        path.unlink()
    rebuild(shard_dir)
    ShardSet(shard_dir)
    assert files_of(shard_dir) == before


def test_tokens_follow_the_geometry(shard_dir: Path) -> None:
    (row,) = (row for row in read_manifest(shard_dir) if row.shard.startswith("heldout"))
    (entry,) = read_index(shard_dir, row).samples
    # 64x96 grows to 208x320: the same aspect within 4%, an area of at least 256x256
    assert entry.tokens % (1 + 2) == 0
    assert entry.tokens >= 2 * 3 * 256


@pytest.mark.parametrize(
    ("frames", "size", "tokens"),
    [
        (1, (256, 256), 256),  # a token is 16x16 pixels
        (1, (512, 256), 512),
        (4, (256, 256), 2 * 256),  # the first frame alone, then one latent for up to four
        (5, (256, 256), 2 * 256),
        (6, (256, 256), 3 * 256),
        (33, (256, 256), 9 * 256),
        (1, (1024, 1024), 1024),  # shrunk to 512x512
    ],
)
def test_tokens_of_the_paper_s_codec(frames: int, size: tuple[int, int], tokens: int) -> None:
    assert TokenGeometry().tokens(frames, *size) == tokens


def test_refuses_what_cannot_be_written(tmp_path: Path, make_items: Callable[..., list[Item]]) -> None:
    items = make_items(tmp_path, pairs=2, heldout=0)
    with pytest.raises(SampleError, match="two samples have this key"):
        write_shards(tmp_path / "out", [items[0], items[0]])
    sample, files = items[1]
    with pytest.raises(SampleError, match="disagree about mask"):
        write_shards(tmp_path / "out", [(sample, {n: p for n, p in files.items() if n != "mask"})])
    files["video1"].write_bytes(b"")
    with pytest.raises(SampleError, match=r"video1: .* is missing or empty"):
        write_shards(tmp_path / "out", [(sample, files)])
    assert not (tmp_path / "out").exists()


def test_a_shard_being_written_has_no_final_name(
    tmp_path: Path, make_items: Callable[..., list[Item]], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = make_items(tmp_path, pairs=2, heldout=0)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_shards(tmp_path / "out", items)
    assert list((tmp_path / "out").iterdir()) == []


def test_broken_off_anywhere_a_folder_names_nothing_that_is_not_whole(
    tmp_path: Path, make_items: Callable[..., list[Item]], monkeypatch: pytest.MonkeyPatch
) -> None:
    items, sync = make_items(tmp_path, pairs=3, height=16, width=16), os.fsync

    def breaking(limit: int) -> Callable[[int], None]:
        calls = itertools.count()

        def fsync(handle: int) -> None:
            if next(calls) >= limit:
                raise OSError(28, "No space left on device")
            sync(handle)

        return fsync

    for limit in itertools.count():
        folder = tmp_path / f"out{limit}"
        with monkeypatch.context() as patch, contextlib.suppress(OSError):
            patch.setattr(os, "fsync", breaking(limit))
            write_shards(folder, items, max_samples=1)
            break
        if (folder / "manifest.jsonl").is_file():  # the last of all files
            report = verify(folder, decode=False)
            assert (report.samples, report.faults) == (3, [])
    assert limit > 10  # a file and its folder, for three shards, their indices and the manifest
    assert verify(folder).samples == 3


def flip_a_byte(directory: Path) -> str:
    path = directory / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "train-000000.tar"


def truncate_a_tar(directory: Path) -> str:
    path = directory / "train-000001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "train-000001.tar"


def swap_two_shards(directory: Path) -> str:
    a, b = directory / "train-000000.tar", directory / "train-000001.tar"
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)
    return "train-000000.tar"


def swap_two_videos(directory: Path) -> str:
    """Exchange source and target inside a tar, as a careless tool would; its index cannot be rebuilt then."""
    path = directory / "heldout-000000.tar"
    with tarfile.open(path) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    names = {"video1.mp4": "video2.mp4", "video2.mp4": "video1.mp4"}
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for member, data in members:
            key, _, suffix = member.name.partition(".")
            member.name = f"{key}.{names.get(suffix, suffix)}"
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ShardError, match=r"object_removal-00000003-0000\.video1\.mp4: its sha256"):
        rebuild(directory)
    return "object_removal-00000003-0000.video1.mp4"


def lose_a_shard(directory: Path) -> str:
    (directory / "heldout-000000.tar").unlink()
    return "heldout-000000.tar: missing"


@pytest.mark.parametrize(
    "damage", [flip_a_byte, truncate_a_tar, swap_two_shards, swap_two_videos, lose_a_shard]
)
def test_verify_passes_and_then_fails_by_name(shard_dir: Path, damage: Callable[[Path], str]) -> None:
    good = verify(shard_dir)
    assert (good.faults, good.samples, good.media) == ([], 4, 12)
    named = damage(shard_dir)
    done = command("verify", shard_dir)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_byte_that_belongs_to_no_sample_is_noticed(shard_dir: Path) -> None:
    path = shard_dir / "train-000000.tar"
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        member = next(m for m in tar if m.name.endswith(".mp4") and m.size % 512)
    data[member.offset_data + member.size] ^= 1  # what fills the last block
    path.write_bytes(data)
    assert any("its sha256 is not the manifest's" in fault for fault in verify(shard_dir).faults)


def test_random_access_notices_damage(shard_dir: Path) -> None:
    opened = ShardSet(shard_dir, "train")
    truncate_a_tar(shard_dir)
    with pytest.raises(ShardError, match=r"truncated .* inside"):
        opened[2].bytes("video2")
    with pytest.raises(ShardError, match=r"train-000001\.tar"):
        list(stream(shard_dir))


def test_a_stale_index_is_refused(shard_dir: Path) -> None:
    shutil.rmtree(next(shard_dir.glob("columns-*")))
    shutil.copy(shard_dir / "train-000001.index.json", shard_dir / "train-000000.index.json")
    with pytest.raises(ShardError, match="was made from another"):
        ShardSet(shard_dir)


def test_commands(shard_dir: Path, tmp_path: Path) -> None:
    assert "4 samples" in command("verify", shard_dir).stdout
    listed = command("ls", shard_dir, "--split", "heldout", "--format", "table")
    assert "object_removal heldout: 1 samples" in listed.stdout
    key = ShardSet(shard_dir).keys[0]
    shown = command("show", shard_dir, key, "--out", tmp_path / "out")
    assert shown.returncode == 0, shown.stderr
    frames, fps = read_video(tmp_path / "out" / f"{key}.video1.mp4")
    assert frames.shape == (9, 64, 96, 3)
    assert fps == pytest.approx(10)
    assert np.ptp(frames) > 50
    (shard_dir / "heldout-000000.tar").unlink()
    refused = command("index", shard_dir)
    assert refused.returncode == 2
    assert "1 of the 1 of heldout-000000.tar" in refused.stderr
    assert "train-000001.tar: 1 samples" in command("index", shard_dir, "--accept_loss", "true").stdout


@pytest.mark.parametrize("args", [("verify", "nowhere"), ("ls", "."), ("index", "."), ("show", ".", "key")])
def test_a_folder_without_shards_is_one_clear_line(args: tuple[str, ...], tmp_path: Path) -> None:
    name, directory, *rest = args
    done = command(name, tmp_path / directory, *rest)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1

"""Damage to a shard folder, bit by bit: a reader notices it, or what it reads is what was written."""

from __future__ import annotations

import json
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.encoded import EncodedSet, write_encoded
from shards.index import read_index, rebuild
from shards.location import ShardError
from shards.manifest import read_manifest
from shards.reader import Record, ShardSet, stream
from shards.verify import verify
from shards.writer import Item, write_shards

BLOCK = 512
FLIPS = 400
ENCODING = "e" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    """Three small shards of five samples, and in `encoded` a member for each of them."""
    scratch = tmp_path_factory.mktemp("flips")
    items = [
        (sample.model_copy(update={"captions": {"source": "a square"}, "scores": {"clip": 0.25}}), files)
        for sample, files in make_items(scratch, pairs=5, frames=2, height=16, width=16)
    ]
    write_shards(scratch / "shards", items, max_samples=2)
    (scratch / "shards" / "encoded").mkdir()
    (scratch / "shards" / "encoded" / "encoding.json").write_text("{}")
    for row in read_manifest(scratch / "shards"):
        keys = [entry.key for entry in read_index(scratch / "shards", row).samples]
        samples = [(key, random.Random(key).randbytes(700), [3, 4]) for key in keys]
        write_encoded(scratch / "shards" / "encoded", row, ENCODING, samples)
    return scratch / "shards"


@pytest.fixture(params=["as written", "as written before there were checksums"])
def layout(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, also as earlier versions wrote it."""
    copy = tmp_path / "shards"
    shutil.copytree(folder, copy)
    if request.param != "as written":
        make_old(copy)
    return copy


def make_old(folder: Path) -> None:
    """Leave out the fields that manifest and indexes did not have at first."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    old = ("shard", "sha256", "samples", "bytes")
    (folder / "manifest.jsonl").write_text("".join(json.dumps({k: r[k] for k in old}) + "\n" for r in rows))
    for path in [*folder.glob("*.index.json"), *folder.glob("encoded/*.index.json")]:
        index = json.loads(path.read_text())
        index.pop("index_sha256", None)
        samples = index["samples"]
        for entry in samples.values() if isinstance(samples, dict) else samples:
            entry.pop("json_sha256", None)
            if "texts" in entry:
                entry.pop("sha256")
        path.write_text(json.dumps(index, sort_keys=True) + "\n")


def content(record: Record) -> tuple[bytes, ...]:
    return record.sample.to_json(), *(record.bytes(name) for name in sorted(record.sample.media))


def opened(folder: Path) -> list[tuple[bytes, ...]]:
    return [content(record) for record in ShardSet(folder)]


def streamed(folder: Path) -> list[tuple[bytes, ...]]:
    return [content(record) for record in stream(folder)]


def encoded(folder: Path) -> list[tuple[bytes, ...]]:
    shards = ShardSet(folder)
    files = EncodedSet(folder / "encoded", shards.rows, ENCODING)
    names = {key: shards.shard_of(key) for key in shards.keys}
    return [(files.read(shard, key), bytes(files.texts(shard, key))) for key, shard in names.items()]


def proved(folder: Path) -> list[tuple[bytes, ...]]:
    """Nothing where `verify` is content, else ShardError."""
    if faults := verify(folder, decode=False).faults:
        raise ShardError(faults[0])
    return []


def proved_encoded(folder: Path) -> list[tuple[bytes, ...]]:
    return proved(folder / "encoded")


READERS = (opened, streamed, proved)
ENCODED_READERS = (encoded, proved_encoded)
Truth = dict[Callable[[Path], list[tuple[bytes, ...]]], list[tuple[bytes, ...]]]


def read_all(folder: Path) -> Truth:
    """What every reader gives of an undamaged folder."""
    return {reader: reader(folder) for reader in READERS + ENCODED_READERS}


def outcomes(folder: Path, damaged: Path, truth: Truth) -> dict[str, str]:
    """What each reader of the damaged file makes of the folder: caught, harmless, or SILENT."""
    result = {}
    for reader in ENCODED_READERS if damaged.parent.name == "encoded" else READERS:
        try:
            result[reader.__name__] = "harmless" if reader(folder) == truth[reader] else "SILENT"
        except ShardError as error:
            result[reader.__name__] = "caught" if len(str(error).splitlines()) == 1 else str(error)
    return result


def regions(path: Path) -> list[str]:
    """What lies at each byte: of a tar the header, JSON, medium, padding or trailer."""
    where, size = "encoded " if path.parent.name == "encoded" else "", path.stat().st_size
    if path.suffix != ".tar":
        return [where + ("manifest" if path.suffix == ".jsonl" else "index")] * size
    names: list[str] = []
    with tarfile.open(path) as tar:
        for member in tar:
            names += [where + "header"] * (member.offset_data - len(names))
            names += [where + ("JSON" if member.name.endswith(".json") else "medium")] * member.size
            names += [where + "padding"] * (-member.size % BLOCK)
    return names + [where + "trailer"] * (size - len(names))


def targets(folder: Path) -> list[Path]:
    files = [*folder.glob("*.*"), *folder.glob("encoded/train*")]  # columns have a test of their own
    return sorted(p for p in files if p.suffix in (".tar", ".json", ".jsonl"))


def places(folder: Path, count: int) -> list[tuple[Path, int, str]]:
    """`count` random bytes and what lies there, as many of every region."""
    rng = random.Random(0)
    by_region: dict[str, list[tuple[Path, int, str]]] = {}
    for path in targets(folder):
        for at, name in enumerate(regions(path)):
            by_region.setdefault(name, []).append((path, at, name))
    each = -(-count // len(by_region))
    return [rng.choice(by_region[name]) for name in sorted(by_region) for _ in range(each)][:count]


def test_every_flipped_bit_is_caught_or_harmless(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(folder, copy)
    truth = read_all(copy)
    rng, counts = random.Random(1), Counter()
    for path, at, where in places(copy, FLIPS):
        good = path.read_bytes()
        damaged = bytearray(good)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        result = outcomes(copy, path, truth)
        path.write_bytes(good)
        assert set(result.values()) <= {"caught", "harmless"}, (path.name, at, where, result)
        expected = {"proved", "proved_encoded", "streamed"}
        if where in ("header", "JSON", "medium", "manifest", "encoded medium", "encoded index"):
            expected |= {"opened", "encoded"}
        # The others never look at padding, nor at an index of which there are columns: what they give is the
        # same. Nor do encoded samples' readers look at headers.
        if where == "encoded header":
            expected -= {"encoded"}
        assert {reader for reader, how in result.items() if how == "caught"} == expected & set(result)
        counts.update((where, reader, how) for reader, how in result.items())
    for where in sorted({key[0] for key in counts}):
        row = {f"{reader} {how}": n for (region, reader, how), n in sorted(counts.items()) if region == where}
        print(f"{where}: {row}")
    assert sum(counts[where, reader, "caught"] for where, reader, _ in counts if "proved" in reader) == FLIPS


def test_flips_of_an_older_folder_raise_nothing_else(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(folder, copy)
    make_old(copy)
    truth, rng = read_all(copy), random.Random(2)
    for path, at, where in places(copy, 150):
        good = path.read_bytes()
        damaged = bytearray(good)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        result = outcomes(copy, path, truth)  # what has no checksum may be silently wrong
        path.write_bytes(good)
        if path.suffix == ".tar" and "encoded" not in where:
            assert result["streamed"] == result["proved"] == "caught"


def cut(rng: random.Random, path: Path, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def swap_blocks(rng: random.Random, path: Path, data: bytes) -> bytes:
    first, second = sorted(rng.sample(range(-(-len(data) // BLOCK)), 2))
    a, b = slice(first * BLOCK, (first + 1) * BLOCK), slice(second * BLOCK, (second + 1) * BLOCK)
    return data[: a.start] + data[b] + data[a.stop : b.start] + data[a] + data[b.stop :]


def append(rng: random.Random, path: Path, data: bytes) -> bytes:
    return data + rng.randbytes(rng.choice([1, BLOCK, 1000]))


def repeat_a_member(rng: random.Random, path: Path, data: bytes) -> bytes:
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    member = rng.choice(members)
    block = data[member.offset : member.offset_data + -(-member.size // BLOCK) * BLOCK]
    end = members[-1].offset_data + -(-members[-1].size // BLOCK) * BLOCK
    place = rng.choice([member.offset, end])
    return data[:place] + block + data[place:]


@pytest.mark.parametrize(
    ("damage", "count"), [(cut, 200), (swap_blocks, 60), (append, 40), (repeat_a_member, 30)]
)
def test_larger_damage_is_caught_or_harmless(
    folder: Path, tmp_path: Path, damage: Callable[[random.Random, Path, bytes], bytes], count: int
) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(folder, copy)
    truth, rng, tally = read_all(copy), random.Random(3), Counter()
    files = [p for p in targets(copy) if p.suffix == ".tar" or damage in (cut, append)]
    for _ in range(count):
        path = rng.choice(files)
        good = path.read_bytes()
        damaged = damage(rng, path, good)
        path.write_bytes(damaged)
        result = outcomes(copy, path, truth)
        path.write_bytes(good)
        # Two equal blocks may have been exchanged; the last line of a file may lack its end.
        same = damaged.rstrip(b"\n") == good.rstrip(b"\n")
        assert set(result.values()) <= {"caught", "harmless"}, (path.name, result)
        assert same or "caught" in (result.get("proved"), result.get("proved_encoded")), path.name
        tally.update(f"{reader} {how}" for reader, how in result.items())
    print(f"{damage.__name__}: {dict(sorted(tally.items()))}")


def test_both_layouts_are_read(folder: Path, layout: Path) -> None:
    assert read_all(layout) == read_all(folder)


def flip_a_checksum(path: Path, member: int) -> int:
    """Damage the checksum in the header of a member; returns where the header begins."""
    with tarfile.open(path) as tar:
        at = tar.getmembers()[member].offset
    data = bytearray(path.read_bytes())
    data[at + 150] ^= 1
    path.write_bytes(data)
    return at


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_a_damaged_header_does_not_end_the_archive(layout: Path) -> None:
    at = flip_a_checksum(layout / "train-000000.tar", 4)
    before = files_of(layout)
    message = rf"train-000000\.tar: damaged header at byte {at}"
    with pytest.raises(ShardError, match=message):
        list(stream(layout))
    assert any(str(at) in fault for fault in verify(layout, decode=False).faults)
    with pytest.raises(ShardError, match=message + ".*--accept_loss true"):
        rebuild(layout)
    assert files_of(layout) == before


def test_index_loses_nothing_unless_that_is_accepted(layout: Path, folder: Path) -> None:
    keys = ShardSet(folder).keys
    shorter = layout / "train-000001.tar"
    with tarfile.open(shorter) as tar:
        second = tar.getmembers()[4]
    shorter.write_bytes(shorter.read_bytes()[: second.offset] + bytes(2 * BLOCK))  # a whole tar of one sample
    before = files_of(layout)
    with pytest.raises(ShardError, match=rf"lost: 1 of the 2 of train-000001.*{keys[4]}.*accept_loss"):
        rebuild(layout)
    (layout / "train-000001.index.json").write_text("{")  # the manifest still says how many there were
    with pytest.raises(ShardError, match=r"lost: 1 of the 2 of train-000001\.tar; "):
        rebuild(layout)
    (layout / "heldout-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"1 of the 1 of heldout-000000\.tar"):
        rebuild(layout)
    assert files_of(layout) == {k: v for k, v in before.items() if "heldout-000000.tar" not in k} | {
        "train-000001.index.json": b"{"
    }
    flip_a_checksum(layout / "train-000000.tar", 4)
    rows = rebuild(layout, accept_loss=True)
    assert [(row.shard, row.samples) for row in rows] == [("train-000001.tar", 1)]
    assert ShardSet(layout).keys == keys[3:4]
    assert (layout / "train-000000.tar.damaged").is_file()
    assert verify(layout, decode=False).faults == []


def test_a_damaged_manifest_or_index_is_rebuilt(layout: Path, folder: Path) -> None:
    for name in ("manifest.jsonl", "train-000000.index.json"):
        path = layout / name
        path.write_bytes(path.read_bytes().replace(b"000", b"00\xff", 1))
        shutil.rmtree(next(layout.glob("columns-*")))
        with pytest.raises(ShardError, match=r"manifest|index"):
            ShardSet(layout)
        rebuild(layout)
        assert opened(layout) == opened(folder)
    assert files_of(layout) == files_of(folder)

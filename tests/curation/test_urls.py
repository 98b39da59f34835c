"""Inputs, workspace and outputs at URLs, with a real S3 server; and what is odd in a list or folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from curation.core.cache import Workspace
from curation.datasets.cli import import_pairs
from curation.engine.output import Output
from curation.engine.run import run
from curation.engine.task_config import RunError, default_config
from curation.sources.listing import find_sources, local_copy
from shards import location as location_module
from shards.files import sha256_of
from shards.hashing import digest
from shards.location import Location, ShardError, StoreError
from shards.manifest import read_manifest
from shards.media import MediaError, write_video
from shards.reader import ShardSet
from shards.verify import verify
from tests.curation.conftest import command, environment
from tests.curation.published import publish, samples
from tests.curation.s3 import S3Server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    made = S3Server()
    yield made
    made.close()


@pytest.fixture
def bucket(
    server: S3Server, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of an empty bucket, which this process and those that it starts know how to reach."""
    from s3fs import S3FileSystem

    server.refuse = lambda method, path: False
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", server.options)
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(location_module, "WAIT", 0.01)
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    name = f"bucket-{digest(request.node.name)[:12]}"
    S3FileSystem().mkdir(name)
    server.requests.clear()
    return f"s3://{name}"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8), 10.0)
    return path


# ---- what is to be cut ------------------------------------------------------------------------------------


def test_odd_files_are_rows_and_others_are_counted(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    (folder / "below").mkdir(parents=True)
    data = video.read_bytes()
    for name in ("b.mp4", "below/A.MP4", "a.mkv"):
        (folder / name).write_bytes(data)
    (folder / "empty.mp4").touch()
    (folder / "dangling.mp4").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.mp4")
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(data)
    for name in ("notes.txt", "more.TXT", "README"):
        (folder / name).write_text("no video")
    found = find_sources(str(folder))
    assert found.files == tuple(str(folder / name) for name in ("a.mkv", "b.mp4", "below/A.MP4"))
    told = {Path(row.file).name: row.reason for row in found.unusable}
    assert told == {
        "empty.mp4": "an empty file",
        "dangling.mp4": "a link to nothing",
        "pipe.mp4": "not a regular file but a pipe, socket or device",
        "caf\\xe9.mp4": "its name is not UTF-8; rename it",
    }
    assert found.told == "left out: 2 .txt, 1 without suffix"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permissions")
def test_what_may_not_be_read_is_a_row(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    (folder / "closed").mkdir(parents=True)
    for name in ("open.mp4", "locked.mp4"):
        (folder / name).write_bytes(video.read_bytes())
    (folder / "locked.mp4").chmod(0)
    (folder / "closed").chmod(0)
    code = (
        "import os, sys; from curation.sources.listing import find_sources\n"
        "os.chdir(sys.argv[1]); os.setuid(65534); found = find_sources('.')\n"
        "print(len(found.files), *found.unusable, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "1",
        "./closed: a folder that cannot be read: Permission denied",
        "./locked.mp4: no permission to read it",
    ]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_lists_name_paths_and_urls(suffix: str, video: Path, tmp_path: Path) -> None:
    (tmp_path / "odd name").write_bytes(video.read_bytes())
    entries = ["s3://b/x.mp4", "odd name", str(video), "odd name", "gone.mp4"]
    path = tmp_path / f"list{suffix}"
    if suffix == ".txt":
        path.write_text("# what to cut\n\n" + "\r\n".join(entries) + "\n")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"path": entry, "n": 1}) + "\n" for entry in entries))
    elif suffix == ".csv":
        path.write_text("n,url\n" + "".join(f"1,{entry}\n" for entry in entries))
    else:
        pyarrow.parquet.write_table(pyarrow.table({"url": entries}), path)
    found = find_sources(str(path))
    assert set(found.files) == {"s3://b/x.mp4", str(tmp_path / "odd name"), str(video)}
    assert list(found.files) == sorted(found.files)
    assert [str(row) for row in found.unusable] == [f"{tmp_path}/gone.mp4: no such file"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"path": "x.mp4"}\nnot JSON\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: needs an object"),
        ("a.csv", "name,size\nx,1\n", "has no column `url` or `path`, but name, size"),
        ("a.parquet", "no parquet", "no parquet file"),
        ("a.txt", "# nothing\n", "an empty list"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MediaError, match=message) as caught:
        find_sources(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_store_lists_its_videos_and_keeps_its_lists(bucket: str, video: Path) -> None:
    store = Location(bucket)
    for name in ("clips/b.mp4", "clips/deep/a b.mp4", "clips/notes.txt", "other.mp4"):
        store.put(name, video)
    store.put("clips/empty.mkv", b"")
    store.put("lists/all.txt", b"../clips/b.mp4\ns3://elsewhere/x.mp4\n")
    found = find_sources(f"{bucket}/clips/")
    assert found.files == (f"{bucket}/clips/b.mp4", f"{bucket}/clips/deep/a b.mp4")
    assert [row.file for row in found.unusable] == [f"{bucket}/clips/empty.mkv"]
    assert found.left_out == {".txt": 1}
    assert "s3://elsewhere/x.mp4" in find_sources(f"{bucket}/lists/all.txt").files
    with pytest.raises(MediaError, match="no such folder"):
        find_sources(f"{bucket}/nothing")


def test_a_remote_source_is_fetched_only_when_asked_for(
    bucket: str, server: S3Server, video: Path, tmp_path: Path
) -> None:
    Location(bucket).put("a.mp4", video)
    server.requests.clear()
    with local_copy(f"{bucket}/a.mp4") as file:
        assert file.version
        assert not any(request.startswith("GET") and request.endswith("a.mp4") for request in server.requests)
        assert file.path.read_bytes() == video.read_bytes()
        assert file.sha256 == sha256_of(video)
    assert not list((tmp_path / "cache" / "sources").iterdir())
    with (
        local_copy(f"{bucket}/gone.mp4") as gone,
        pytest.raises(MediaError, match=r"gone\.mp4: no such file"),
    ):
        _ = gone.sha256
    with pytest.raises(MediaError, match=rf"^{bucket}/a\.mp4: spoilt"), local_copy(f"{bucket}/a.mp4") as file:
        raise MediaError(f"{file.path}: spoilt")


# ---- the workspace ----------------------------------------------------------------------------------------


def make(folder: Path) -> dict[str, int]:
    (folder / "pixels.bin").write_bytes(b"x" * 1000)
    return {"answer": 42}


def test_another_machine_finds_results_and_fetches_what_it_needs(
    bucket: str, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Workspace(f"{bucket}/workspace")
    folder, result = first.cached("stage", {"clip": "a"}, make)
    reference = first.reference(folder)
    uploads = [request.rpartition("/")[2] for request in server.requests if request.startswith("PUT")]
    assert uploads == ["pixels.bin", "result.json"]  # the last one is the commit
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "another"))
    second = Workspace(f"{bucket}/workspace")
    assert second.local != first.local
    server.requests.clear()
    again, found = second.cached("stage", {"clip": "a"}, make, files=False)
    assert (found, second.reference(again)) == (result, reference)
    assert second.read(reference) == result
    assert (second.work["stage"].computed, second.work["stage"].reused) == (0, 1)
    assert not any("pixels.bin" in request for request in server.requests)
    assert second.path(f"{reference}/pixels.bin").read_bytes() == b"x" * 1000
    assert sorted(path.name for path in second.folder(reference).iterdir()) == ["pixels.bin", "result.json"]
    server.requests.clear()
    second.folder(reference)
    second.read(reference)
    assert not server.requests  # copies are kept


def test_a_result_that_was_deleted_at_the_store_is_made_again(bucket: str) -> None:
    space = Workspace(f"{bucket}/workspace")
    folder, _ = space.cached("stage", 1, make)
    space.location.remove(f"{space.reference(folder)}/result.json")
    space.cached("stage", 1, make)
    assert space.work["stage"].computed == 2
    assert space.location.read(f"{space.reference(folder)}/result.json") == b'{"answer":42}'


def test_an_upload_that_is_cut_short_is_no_result(bucket: str, server: S3Server) -> None:
    space = Workspace(f"{bucket}/workspace")
    server.refuse = lambda method, path: method == "PUT" and path.endswith("result.json")
    with pytest.raises(StoreError, match=r"result\.json: "):
        space.cached("stage", 1, make)
    server.refuse = lambda method, path: False
    assert space.cached("stage", 1, make)[1] == {"answer": 42}
    assert space.work["stage"].computed == 1


def test_refused_requests_are_tried_again(bucket: str, server: S3Server) -> None:
    seen: dict[str, int] = {}

    def every_first(method: str, path: str) -> bool:
        seen[method + path] = seen.get(method + path, 0) + 1
        return seen[method + path] == 1

    server.refuse = every_first
    space = Workspace(f"{bucket}/workspace")
    folder, result = space.cached("stage", 1, make)
    assert result == {"answer": 42}
    assert any(count > 1 for count in seen.values())
    assert space.begin_attempt("run", "key") == 0
    assert space.begin_attempt("run", "key") == 1
    space.end_attempt("run", "key")
    assert space.begin_attempt("run", "key") == 0
    space.end_run("run")
    assert not space.location.sizes("attempts")
    assert list(space.location.sizes()) == [
        f"{space.reference(folder)}/{n}" for n in ("pixels.bin", "result.json")
    ]


# ---- outputs ----------------------------------------------------------------------------------------------


def test_published_shards_are_read_and_verified(bucket: str, video: Path) -> None:
    url = f"{bucket}/out"
    publish(url, samples(video, 3))
    assert not verify(url).faults
    shards = ShardSet(url)
    assert [shards[i].key for i in range(3)] == ["edit-0", "edit-1", "edit-2"]
    assert shards["edit-1"].bytes("video1") == video.read_bytes()
    before = Location(url).sizes()
    publish(url, samples(video, 3))
    assert Location(url).sizes() == before  # the same samples have the same names and bytes
    publish(url, samples(video, 2, "Add a cat."))
    after = Location(url).sizes()
    assert [name for name in before if name.endswith(".tar") and name in after] == []
    assert len([name for name in after if name.endswith(".tar")]) == 1
    assert not verify(url).faults
    with pytest.raises(RunError, match="another config"):
        Output(url).claim("edit", "other")
    Location(url).put("train-999999.tar", b"")
    assert verify(url).faults == [f"{url}/train-999999.tar: not named by the manifest"]


@pytest.mark.parametrize("at", [1, 11, 12, 13])
def test_a_publish_that_is_killed_leaves_a_valid_set(
    at: int, bucket: str, server: S3Server, video: Path
) -> None:
    """Killed at an upload: of the first of nine files of columns, of the shard, its manifest, or the page."""
    url = f"{bucket}/out"
    publish(url, samples(video, 2))
    code = (
        "import sys; from pathlib import Path; from tests.curation.published import publish, samples\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "publish(sys.argv[1], samples(Path(sys.argv[2]), 3, 'Add a cat.'))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, url, str(video)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    puts: list[str] = []

    def kill(method: str, path: str) -> bool:
        if method == "PUT":
            puts.append(path)
            if len(puts) == at:
                child.send_signal(signal.SIGKILL)
                return True
        return False

    server.refuse = kill
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.wait(timeout=120) == -signal.SIGKILL
    server.refuse = lambda method, path: False
    keys = set(ShardSet(url).keys)
    named = any(path.endswith("manifest.jsonl") for path in puts[:-1])
    assert keys == {f"edit-{number}" for number in range(3 if named else 2)}
    assert not [fault for fault in verify(url).faults if "not named" not in fault]
    publish(url, samples(video, 3, "Add a cat."))
    assert not verify(url).faults  # what the killed one left is gone, too


def test_a_url_never_becomes_a_local_folder(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("s3:/bucket/out", "nosuch://bucket/out", "https://example.invalid/out"):
        with pytest.raises((ShardError, RunError)):
            publish(out, [])
    with pytest.raises(ShardError, match="as a Path"):
        Output(Path("s3://bucket/out"))
    (tmp_path / "s3:" / "bucket" / "out").mkdir(parents=True)
    with pytest.raises(ShardError, match="a local folder of that name"):
        Output("s3://bucket/out")
    assert not list((tmp_path / "s3:").rglob("*.json"))


# ---- a run ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_from_store_to_store_gives_the_samples_of_a_local_one(
    bucket: str,
    server: S3Server,
    good_clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, config = Location(bucket), default_config("sketch_to_video")
    for path in good_clips.iterdir():
        store.put(f"clips/{path.name}", path)
    store.put("clips/readme.md", b"text")
    store.put("clips/broken.mp4", b"no video")
    places = (f"{bucket}/clips", f"{bucket}/out", f"{bucket}/workspace")
    summary = run("sketch_to_video", *places, config, 0)
    assert "left out: 1 .md" in capsys.readouterr().err
    assert json.loads(store.read("out/summary.json"))["left_out"] == {".md": 1}
    assert [line.partition(": ")[0] for line in summary.quarantined] == [f"{bucket}/clips/broken.mp4"]
    assert not verify(f"{bucket}/out").faults
    run("sketch_to_video", good_clips, tmp_path / "out", tmp_path / "work", config, 0)
    local, remote = ShardSet(tmp_path / "out"), ShardSet(f"{bucket}/out")
    assert list(local.keys) == list(remote.keys)
    assert all(local[key].bytes("video2") == remote[key].bytes("video2") for key in local.keys)
    before = store.sizes("out")
    server.requests.clear()
    again = run("sketch_to_video", *places, config, 0)
    assert sum(stage.computed for stage in again.stages.values()) == 0
    shards = {name for name in before if name.endswith(".tar")}
    assert {name for name in store.sizes("out") if name.endswith(".tar")} == shards
    assert not any(r.startswith("GET") and r.endswith("clips/a.mp4") for r in server.requests)
    assert not any(r.startswith("PUT") and r.endswith(".tar") for r in server.requests)


def test_a_store_that_stays_down_ends_the_run_with_one_line(
    bucket: str, server: S3Server, good_clips: Path, tmp_path: Path
) -> None:
    server.refuse = lambda method, path: method == "PUT" and "/workspace/" in path
    places = ("--clips", good_clips, "--out", tmp_path / "out", "--workspace", f"{bucket}/workspace")
    done = subprocess.run(
        command("run", "sketch_to_video", *places, "--workers", 0),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{bucket}/workspace/" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


# ---- pairs of others ---------------------------------------------------------------------------------------


def test_tables_of_pairs_are_read_out_of_a_bucket(bucket: str, tmp_path: Path) -> None:
    """CSV and parquet with their pictures, as they are read on a disk."""
    from PIL import Image
    from s3fs import S3FileSystem

    here, store = tmp_path / "here", S3FileSystem()
    here.mkdir()
    rows = []
    for number in range(3):
        names = [f"{number}.png", f"{number}_edited.png"]
        for name in names:
            noise = np.random.default_rng(len(rows) + (name == names[1])).integers(
                0, 255, (32, 48, 3), np.uint8
            )
            Image.fromarray(noise).save(here / name)
        rows.append([*names, "Make it night."])
    lines = [",".join(row) for row in (["source", "target", "instruction"], *rows)]
    (here / "pairs.csv").write_text("\n".join(lines) + "\n")
    columns = {
        name: [(here / row[place]).read_bytes() for row in rows]
        for place, name in enumerate(("source", "target"))
    }
    table = pyarrow.table({**columns, "instruction": [row[2] for row in rows]})
    pyarrow.parquet.write_table(table, here / "pairs.parquet")
    store.put(str(here), f"{bucket}/pairs", recursive=True)
    for file in ("pairs.csv", "pairs.parquet"):
        digests = []
        for source in (here, f"{bucket}/pairs"):
            out = tmp_path / f"{file}-{len(digests)}"
            import_pairs("table", f"{source}/{file}", str(out), workers=0)
            assert len(ShardSet(out)) == 3
            digests.append([row.sha256 for row in read_manifest(out)])
        assert digests[0] == digests[1]

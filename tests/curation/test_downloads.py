"""Clips with their licences, from lists and services, with a server that answers in their layouts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.core.cache import Workspace
from curation.engine.task_config import build, default_config, load_config
from curation.sources.cli import NothingDownloaded, download_clips
from curation.sources.listing import find_sources
from curation.sources.web import LimitReached
from shards.errors import SettingError
from shards.files import sha256_of
from shards.media import MediaError, write_video
from tests.curation.web_server import Page, Seen, WebServer

KEY = "kept-secret-0123456789"


@pytest.fixture
def server() -> Iterator[WebServer]:
    made = WebServer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Three videos of one second that differ."""
    folder, made = tmp_path_factory.mktemp("videos"), []
    for seed in range(3):
        frames = np.full((10, 32, 48, 3), 40 * seed + 60, np.uint8)
        for number, frame in enumerate(frames):
            frame[8:24, number : number + 16] = 255  # moves, without a cut
        write_video(folder / f"{seed}.mp4", frames, 10.0)
        made.append((folder / f"{seed}.mp4").read_bytes())
    return made


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(folder: Path) -> bytes:
    """All bytes of a folder, and all names in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(str(path).encode() + path.read_bytes() for path in files)


# ---- lists ------------------------------------------------------------------------------------------------


def test_a_list_becomes_clips_with_licences_and_goes_on_where_it_was(
    server: WebServer, videos: list[bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.pages = {
        "/a.mp4": Page(videos[0], breaks=1),
        "/b": Page(status=302, headers={"Location": "/moved/b.mp4"}),
        "/moved/b.mp4": Page(videos[1]),
        "/c.mp4": Page(b"<html>Log in</html>", "text/html; charset=utf-8"),
        "/d.mp4": Page(b"no video at all" * 10),
        "/e.mp4": Page(videos[0]),
        "/f.mp4": Page(status=302, headers={"Location": "file:///etc/hostname"}),
    }
    table = tmp_path / "list.csv"
    lines = [f"{server.url}/{name},CC0,Ann" for name in ("a.mp4", "b", "c.mp4", "d.mp4", "e.mp4", "f.mp4")]
    table.write_text("\n".join(["url,license,author", *lines, f"{server.url}/gone.mp4,CC0,"]))
    out = tmp_path / "clips"
    download_clips(str(table), out)

    held = rows(out / "clips.jsonl")
    assert [Path(row["path"]).suffix for row in held] == [".mp4", ".mp4"]
    assert [(out / row["path"]).read_bytes() for row in held] == videos[:2]
    assert [sha256_of(out / row["path"]) for row in held] == [row["sha256"] for row in held]
    assert {row["author"] for row in held} == {"Ann"}
    asked = [seen.headers.get("range") for seen in server.seen if seen.path == "/a.mp4"]
    assert asked == [None, f"bytes={len(videos[0]) // 2}-"], "the second try asks for the rest alone"
    reasons = {row["origin"].rpartition("/")[2]: row["reason"] for row in rows(out / "quarantine.jsonl")}
    assert "no video but text/html" in reasons["c.mp4"]
    assert "the same bytes as a-" in reasons["e.mp4"]
    assert "unsupported protocol" in reasons["f.mp4"]
    assert "HTTP 404" in reasons["gone.mp4"]
    assert set(reasons) == {"c.mp4", "d.mp4", "e.mp4", "f.mp4", "gone.mp4"}
    assert "2 clips, 2 of them new; 5 quarantined" in capfd.readouterr().out

    server.seen.clear()
    server.pages["/c.mp4"] = Page(videos[2])
    (out / held[1]["path"]).unlink()
    with (out / "clips.jsonl").open("a") as file:
        file.write('{"id": "cut o')  # as a kill leaves it
    download_clips(str(table), out)
    assert "/a.mp4" not in {seen.path for seen in server.seen}
    assert [(out / row["path"]).read_bytes() for row in rows(out / "clips.jsonl")] == [
        videos[0],
        videos[1],
        videos[2],
    ]


def test_licences_go_from_the_list_into_provenance(
    server: WebServer, videos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.pages = {f"/{n}.mp4": Page(video) for n, video in enumerate(videos)}
    listing = tmp_path / "list.jsonl"
    licenses = ["CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0"]
    listing.write_text(
        "\n".join(
            json.dumps({"url": f"{server.url}/{number}.mp4", "licence": license})
            for number, license in enumerate(licenses)
        )
    )
    download_clips(str(listing), tmp_path / "clips", commercial=True)
    found = find_sources(str(tmp_path / "clips"))
    assert sorted(found.licenses.values()) == ["CC-BY-4.0", "CC0-1.0"], (
        "what forbids commercial use stays out"
    )
    assert found.told == "", "its own files are not told as left out"
    assert find_sources(str(tmp_path / "clips" / "clips.jsonl")).licenses == found.licenses
    monkeypatch.chdir(tmp_path)
    assert sorted(find_sources("./clips").licenses.values()) == ["CC-BY-4.0", "CC0-1.0"]
    task = build(load_config("camera_change", default_config("camera_change", "offline")))
    task.cut = type(task.cut)(min_frames=2)
    (first, *_) = task.find(str(tmp_path / "clips")).files
    (clip, *_) = task.units(first, Workspace(tmp_path / "workspace"))
    assert task.license(clip) == "CC-BY-4.0"


def test_what_has_no_licence_and_what_is_no_web_address_is_refused(tmp_path: Path, server: WebServer) -> None:
    table = tmp_path / "list.txt"
    table.write_text(f"# two\n{server.url}/a.mp4\n{server.url}/b.mp4\n")
    with pytest.raises(SettingError, match=r"list\.txt, entry 1 and 1 more: states no licence"):
        download_clips(str(table), tmp_path / "out")
    with pytest.raises(NothingDownloaded, match="HTTP 404"):
        download_clips(str(table), tmp_path / "out", license="CC0-1.0")
    table.write_text("file:///etc/passwd\n")
    with pytest.raises(SettingError, match="entry 1: file:///etc/passwd: needs an address"):
        download_clips(str(table), tmp_path / "out", license="CC0-1.0")
    table.write_text("")
    with pytest.raises(MediaError, match="an empty list"):
        download_clips(str(table), tmp_path / "out", license="CC0-1.0")
    with pytest.raises(SettingError, match="neither a list of addresses"):
        download_clips("vimeo:street", tmp_path / "out")


# ---- services ---------------------------------------------------------------------------------------------


def pexels_video(server: WebServer, number: int, seconds: int = 1) -> dict[str, Any]:
    """In the layout of pexels.com/api/documentation, "The Video Resource"."""
    sizes = [(1920, 1080), (1280, 720), (640, 360)]
    files: list[dict[str, Any]] = [
        {
            "id": width,
            "quality": "hd",
            "file_type": "video/mp4",
            "width": width,
            "height": height,
            "fps": 25.0,
            "link": f"{server.url}/{number}-{height}.mp4",
        }
        for width, height in sizes
    ]
    files.append(
        {"id": 9, "quality": "hls", "file_type": "application/x-mpegURL", "width": None, "height": None}
    )
    return {
        "id": number,
        "width": 1920,
        "height": 1080,
        "url": f"https://www.pexels.com/video/{number}/",
        "duration": seconds,
        "user": {"id": 1, "name": "Ann Author", "url": "https://www.pexels.com/@ann"},
        "video_files": files,
        "video_pictures": [],
    }


def test_pexels_is_asked_page_by_page_waits_and_keeps_the_key(
    server: WebServer,
    videos: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = server.document(
        {
            "page": 1,
            "per_page": 80,
            "total_results": 4,
            "next_page": "https://elsewhere.example/page2",
            "videos": [pexels_video(server, 1), pexels_video(server, 2, seconds=9000)],
        },
        busy=[{"Retry-After": "1"}],
    )
    second = server.document({"page": 2, "videos": [pexels_video(server, 3), pexels_video(server, 4)]})
    server.pages = {
        "/videos/search": lambda seen: {"1": first, "2": second}[seen.query["page"]],
        "/1-720.mp4": Page(videos[0]),
        "/3-720.mp4": Page(videos[1]),
        "/4-720.mp4": Page(videos[2]),
    }
    out = tmp_path / "out"

    def get(count: int = 2, permission: str = "their letter of 1 May") -> None:
        endpoint = f"{server.url}/videos/search"
        download_clips("pexels:people walking", out, count=count, permission=permission, endpoint=endpoint)

    with pytest.raises(SettingError, match="PEXELS_API_KEY"):
        get()
    monkeypatch.setenv("PEXELS_API_KEY", KEY)
    with pytest.raises(SettingError, match=r"its terms forbid .* --permission, or take commons:people"):
        get(permission="")
    with pytest.raises(SettingError, match="--count"):
        get(count=0)
    assert not server.seen
    get()
    held = rows(out / "clips.jsonl")
    assert [row["path"] for row in held] == ["pexels-1.mp4", "pexels-3.mp4"], (
        "the largest up to 720, not too long"
    )
    assert held[0]["license"] == "Pexels License"
    assert (held[0]["author"], held[0]["page"]) == ("Ann Author", "https://www.pexels.com/video/1/")
    assert held[0]["permission"] == "their letter of 1 May"
    searches = [seen for seen in server.seen if seen.path == "/videos/search"]
    assert [seen.query["page"] for seen in searches] == ["1", "1", "2"]
    assert {seen.headers.get("authorization") for seen in searches} == {KEY}
    assert not any("authorization" in seen.headers for seen in server.seen if seen.path.endswith(".mp4"))
    said = capfd.readouterr()
    assert "asks to wait: 1 s" in said.err
    server.seen.clear()
    get(count=3)
    assert [seen.path for seen in server.seen] == ["/4-720.mp4"], "searches of today are not asked again"
    assert KEY.encode() not in written(out) + (said.out + said.err).encode()


def test_pixabay_has_its_key_in_the_address_and_it_is_not_shown(
    server: WebServer, videos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXABAY_API_KEY", KEY)
    none = {"url": "", "width": 0, "height": 0, "size": 0}
    small = {"url": f"{server.url}/small.mp4", "width": 960, "height": 540, "size": 9}
    hit = {
        "id": 125,
        "pageURL": "https://pixabay.com/videos/id-125/",
        "duration": 1,
        "videos": {
            "large": none,
            "medium": {**small, "url": "", "width": 1280, "height": 720},
            "small": small,
        },
        "user_id": 1281706,
        "user": "Ben",
    }
    page = server.document({"total": 1, "totalHits": 1, "hits": [hit]})
    server.pages = {"/api/videos/": page, "/small.mp4": Page(videos[0])}
    get = {"permission": "asked", "endpoint": f"{server.url}/api/videos/", "count": 5}
    download_clips("pixabay:flowers", tmp_path / "out", **get)  # type: ignore[arg-type]
    (row,) = rows(tmp_path / "out" / "clips.jsonl")
    assert (row["path"], row["author"]) == ("pixabay-125.mp4", "Ben")
    assert server.seen[0].query["key"] == KEY

    def refuse(seen: Seen) -> Page:
        return Page(f"[ERROR 400] Invalid key {seen.query['key']}".encode(), "text/plain", 400)

    server.pages["/api/videos/"] = refuse
    with pytest.raises(SettingError, match=r"HTTP 400: \[ERROR 400\] Invalid key \[key\]$") as fault:
        download_clips("pixabay:trees", tmp_path / "out", **get)  # type: ignore[arg-type]
    assert KEY not in str(fault.value)
    assert KEY.encode() not in written(tmp_path / "out")


def test_commons_gives_every_file_its_own_licence(
    server: WebServer, videos: list[bytes], tmp_path: Path
) -> None:
    def page(number: int, license: str) -> dict[str, Any]:
        smaller = {
            "src": f"{server.url}/{number}.480p.webm",
            "type": 'video/webm; codecs="vp9, opus"',
            "transcodekey": "480p.vp9.webm",
            "width": 854,
            "height": 480,
        }
        about: dict[str, Any] = {
            "Artist": {"value": '<a href="//x">Eve &amp; Co</a>', "source": "commons-desc-page"}
        }
        if license:
            about["LicenseShortName"] = {"value": license, "source": "commons-desc-page"}
        info = {
            "url": f"{server.url}/{number}.ogv",
            "descriptionurl": f"https://commons.wikimedia.org/wiki/File:{number}",
            "mime": "application/ogg",
            "width": 1920,
            "height": 1080,
            "duration": 1.0,
            "derivatives": [smaller],
            "extmetadata": about,
        }
        return {
            "pageid": number,
            "ns": 6,
            "title": f"File:{number}.ogv",
            "index": number,
            "videoinfo": [info],
        }

    def answer(seen: Seen) -> Page:
        held = [page(1, "CC BY-SA 4.0"), page(2, "")] if "gsroffset" not in seen.query else [page(3, "CC0")]
        more = {} if "gsroffset" in seen.query else {"continue": {"gsroffset": 20, "continue": "gsroffset||"}}
        return server.document({"batchcomplete": True, "query": {"pages": held}, **more})

    server.pages = {"/w/api.php": answer}
    server.pages |= {f"/{n}.480p.webm": Page(videos[n - 1], "video/webm") for n in (1, 2, 3)}
    download_clips("commons:cat", tmp_path / "out", count=9, endpoint=f"{server.url}/w/api.php")
    held = rows(tmp_path / "out" / "clips.jsonl")
    assert [(row["path"], row["license"]) for row in held] == [
        ("commons-1.webm", "CC BY-SA 4.0"),
        ("commons-3.webm", "CC0"),
    ]
    assert held[0]["author"] == "Eve & Co"
    assert server.seen[0].query["gsrsearch"] == "filetype:video cat"


def test_a_limit_longer_than_the_patience_stops_and_keeps_what_is_done(
    server: WebServer, videos: list[bytes], tmp_path: Path
) -> None:
    server.pages = {"/a.mp4": Page(videos[0]), "/b.mp4": Page(videos[1], busy=[{"Retry-After": "7200"}])}
    table = tmp_path / "list.txt"
    table.write_text(f"{server.url}/a.mp4\n{server.url}/b.mp4\n")
    with pytest.raises(LimitReached, match="asks to wait for 7200 s, more than --patience 60; what is"):
        download_clips(str(table), tmp_path / "out", license="CC0-1.0", patience=60)
    assert len(rows(tmp_path / "out" / "clips.jsonl")) == 1
    download_clips(str(table), tmp_path / "out", license="CC0-1.0")
    assert len(rows(tmp_path / "out" / "clips.jsonl")) == 2

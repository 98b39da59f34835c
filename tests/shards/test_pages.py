"""What pages over samples share: media out of the tars by ranges, masks that play, and who is answered."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shards.errors import SettingError
from shards.media import read_video
from shards.reader import ShardSet
from shards.reports.pages import ASSETS, Samples, application, span_of, told
from shards.reports.server import Server

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def site(shard_dir: Path) -> Iterator[str]:
    """A site over the same folder twice, with a route that takes changes and one that fails."""

    def change(request: Request) -> Response:
        return JSONResponse({"changed": True})

    def fail(request: Request) -> Response:
        raise SettingError("this cannot be")

    routes = [Route("/change", change, methods=["POST"]), Route("/fail", fail)]
    app = application(Samples([str(shard_dir), str(shard_dir)]), routes, hosts=["my.host"])
    with Server(app).running() as url:
        yield url


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


def test_media_come_out_of_the_tars_whole_and_by_ranges(site: str, shard_dir: Path) -> None:
    shards = ShardSet(shard_dir)
    whole = shards[2].bytes("video2")
    for number in (2, 2 + len(shards)):  # of the first folder and of the second
        status, headers, body = ask(site, f"/media/{number}/video2")
        assert (status, body) == (200, whole)
        assert (headers["content-type"], headers["accept-ranges"]) == ("video/mp4", "bytes")
    status, headers, body = ask(site, "/media/2/video2", range="bytes=10-19")
    assert (status, body) == (206, whole[10:20])
    assert headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert ask(site, "/media/2/video2", range="bytes=-7")[2] == whole[-7:]
    assert ask(site, "/media/2/video2", range=f"bytes={len(whole) - 3}-")[2] == whole[-3:]
    assert ask(site, "/media/2/video2", range=f"bytes=0-{10**17}")[2] == whole
    assert ask(site, "/media/2/video2", range=f"bytes={len(whole)}-")[0] == 416
    assert ask(site, "/media/2/video9")[0] == 404
    assert ask(site, f"/media/{2 * len(shards)}/video2")[0] == 404


def test_ranges_that_are_not_understood_are_as_good_as_none() -> None:
    for asked in ("bytes=5-3", "bytes=-", "bytes=0-1,4-5", "bytes=a-b", "items=0-1", "bytes=--1"):
        assert span_of(asked, 100) is None, asked
    assert span_of("bytes=-1000", 100) == (0, 100)
    first, stop = span_of("bytes=-0", 100) or (0, 1)
    assert first >= stop


def test_a_mask_comes_as_a_video_that_plays(site: str, shard_dir: Path) -> None:
    status, headers, body = ask(site, "/media/0/mask")
    assert (status, headers["content-type"]) == (200, "video/mp4")
    frames, fps = read_video(body)
    record = ShardSet(shard_dir)[0]
    assert fps == record.sample.media["mask"].fps
    assert ((frames.mean(-1) > 127) != record.mask()).mean() < 0.02  # lossy, grey


def test_only_own_hosts_and_own_pages_are_answered(site: str) -> None:
    own = urlsplit(site).netloc
    assert ask(site, "/media/0/video1", host="my.host")[0] == 200
    assert ask(site, "/media/0/video1", host="[::1]:80")[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "a:b:c"):
        assert ask(site, "/media/0/video1", host=host)[0] == 403, host
    assert ask(site, "/change", "POST", origin=f"http://{own}")[0] == 200
    assert ask(site, "/change", "POST", origin="http://evil.example")[0] == 403
    assert ask(site, "/change", "POST", origin="null")[0] == 403
    assert ask(site, "/change", "POST", sec_fetch_site="cross-site")[0] == 403
    policy = ask(site, "/assets/page.css")[1]["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_shared_files_are_served_and_no_others(site: str) -> None:
    for path in ASSETS.iterdir():
        status, _, body = ask(site, f"/assets/{path.name}")
        assert (status, body) == (200, path.read_bytes())
    for name in ("..%2Fpages.py", "pages.py", "%2Fetc%2Fpasswd", "none.css"):
        assert ask(site, f"/assets/{name}")[0] == 404, name


def test_a_fault_of_the_asker_is_one_line(site: str) -> None:
    status, _, body = ask(site, "/fail")
    assert (status, json.loads(body)) == (422, {"detail": "this cannot be"})


def test_a_port_that_is_taken_is_one_line(site: str) -> None:
    port = urlsplit(site).port or 0
    with pytest.raises(SettingError, match=f"--port {port}: .*choose another port"):
        Server(application(Samples.__new__(Samples), []), port=port)


def test_a_sample_is_told_with_what_is_to_be_made_last(shard_dir: Path) -> None:
    record = ShardSet(shard_dir)[0]
    value = told(7, record.sample)
    names = [one["name"] for one in value["elements"]]
    assert [one["target"] for one in value["elements"] if one["name"] != "mask"] == [False, True]
    assert sorted(names) == sorted(record.sample.media)
    assert {one["url"] for one in value["elements"]} == {f"media/7/{name}" for name in names}

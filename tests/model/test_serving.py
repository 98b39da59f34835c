"""The service over HTTP, with a worker process and a tiny editor."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import psutil
import pytest
import schemathesis
import torch

from model.serving.api import create_app
from model.serving.batch import BatchJournal, read_table, run_batch
from model.serving.config import ServeConfig
from model.serving.edit_queue import EditQueue, RequestRefused
from model.serving.metrics import Metrics
from model.serving.settings import read_settings
from model.serving.store import EditRecord, EditStore
from model.serving.tokens import Tokens, add_token
from model.serving.work import Outcome, WorkerConfig
from shards.errors import SettingError
from shards.media import read_mask, read_video
from shards.reports.server import Server
from tests.benchmark.study.test_security import send_examples
from tests.model.page_server import free_port
from tests.model.serving import LONG, SIZE, ServiceClient, tiny_checkpoint, tiny_video

ROOT = Path(__file__).parents[2]
QUEUE = 24  # edits that may wait: 20 clients at once, and some
METRIC = re.compile(r'[a-z_]+(?:\{[a-z]+="[^"\n]*"(?:,[a-z]+="[^"\n]*")*\})? (?:[0-9.e+-]+|\+Inf)')


@pytest.fixture(scope="module")
def nodes() -> ModuleType:
    """The file of ComfyUI's nodes, imported as ComfyUI does: by its path."""
    spec = importlib.util.spec_from_file_location(
        "editverse_nodes", ROOT / "deploy/comfyui/editverse_nodes.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_video(tmp_path_factory.mktemp("video") / "in.mp4")


@dataclass(frozen=True)
class Killed:
    """What a server that was killed has left: its folder, and an edit that ran and one that waited."""

    folder: Path
    tokens: Path
    token: str
    edits: tuple[str, str]
    video: Path


@pytest.fixture(scope="module")
def killed(checkpoint: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A server as people start it, ended by SIGKILL with one edit begun and one that waits."""
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    token = add_token(folder / "tokens", "anna")
    options = f"--checkpoint {checkpoint} --out {folder} --port {port} --tokens {folder / 'tokens'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "model", "serve", *options.split(), "--device", "cpu", "--max_steps", "10000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "serves edits at" in process.stdout.readline()
        client = ServiceClient(f"http://127.0.0.1:{port}", token)
        long = tiny_video(folder / "long.mp4", 20)
        first = client.submit(long, seed=4, steps=120).json()["id"]
        edits = first, client.submit(video).json()["id"]
        parts = folder / "edits" / first / "result.mp4.parts"
        _until(lambda: any(parts.glob("*.npy")))
        assert client.status(edits[1])["position"] == 1
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(workers, timeout=10)
    assert left == []  # a worker without a server would hold a GPU for ever
    assert any(parts.glob("*.npy"))  # and from there it goes on
    return Killed(folder, folder / "tokens", token, edits, long)


@dataclass(frozen=True)
class Service:
    """A running service, its queue, and a client with a token."""

    queue: EditQueue
    client: ServiceClient
    url: str


@pytest.fixture(scope="module")
def service(killed: Killed, checkpoint: Path) -> Iterator[Service]:
    config = ServeConfig(
        killed.folder, tokens=killed.tokens, queue=QUEUE, max_upload_mb=1, max_frames=20, max_steps=LONG
    )
    queue = EditQueue(config, WorkerConfig(str(checkpoint), device="cpu"))
    with queue.open() as facts, Server(create_app(queue, facts)).running() as url:
        url = url.rstrip("/")
        yield Service(queue, ServiceClient(url, killed.token), url)


@pytest.mark.slow
def test_edits_go_on_where_a_killed_server_left_them(service: Service, killed: Killed) -> None:
    results = []
    for id in killed.edits:
        status = service.client.wait(id)
        assert status["state"] == "done", status
        results.append(service.client.http.get(status["result"]).content)
        assert not (service.queue.folder / "edits" / id / "result.mp4.parts").exists()
    settings = {"seed": 4, "steps": 120}
    whole = service.client.wait(service.client.submit(killed.video, **settings).json()["id"])
    assert results[0] == service.client.http.get(whole["result"]).content


@pytest.mark.slow
def test_an_edit_is_submitted_watched_and_fetched(service: Service, video: Path, tmp_path: Path) -> None:
    client = service.client
    answer = client.submit(video, seed=3)
    assert answer.status_code == 202
    id = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/edits/{id}"
    status = client.wait(id)
    assert (status["state"], status["steps_done"], status["steps_total"]) == ("done", 2, 2)
    assert status["detail"].startswith("5 frames · 48x32 · 10 fps")
    assert status["mask"] is None
    whole = client.http.get(status["result"])
    assert whole.headers["content-type"] == "video/mp4"
    (tmp_path / "out.mp4").write_bytes(whole.content)
    assert read_video(tmp_path / "out.mp4")[0].shape == (5, *SIZE, 3)
    part = client.http.get(status["result"], headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert client.http.get(f"/v1/edits/{id}/mask").status_code == 404
    kept = client.wait(client.submit(video, keep=1.0, shortcuts={"step_cache": 0.1}).json()["id"])
    (tmp_path / "mask.mkv").write_bytes(client.http.get(kept["mask"]).content)
    assert read_mask(tmp_path / "mask.mkv").shape == (5, *SIZE)
    assert str(service.queue.folder) not in kept["detail"]


@pytest.mark.slow
def test_uploads_serve_several_edits_which_are_those_of_a_form(service: Service, video: Path) -> None:
    client = service.client
    upload = client.http.post("/v1/uploads?filename=in.mp4", content=video.read_bytes())
    assert upload.status_code == 201
    request = {"text": "<video1> Go.", "media": {"video1": upload.json()["id"]}, "settings": {"seed": 5}}
    ids = [client.http.post("/v1/edits", json=request).json()["id"] for _ in range(2)]
    ids.append(client.submit(video, seed=5).json()["id"])
    results = {client.http.get(client.wait(id)["result"]).content for id in ids}
    assert len(results) == 1


@pytest.mark.slow
def test_a_waiting_edit_is_cancelled_at_once_and_a_running_one_between_steps(
    service: Service, video: Path
) -> None:
    client = service.client
    running, waiting = (client.submit(video, steps=LONG).json()["id"] for _ in range(2))
    assert client.wait(running, "running")["state"] == "running"
    gone = client.http.delete(f"/v1/edits/{waiting}").json()
    assert (gone["state"], gone["position"]) == ("cancelled", None)
    client.http.delete(f"/v1/edits/{running}")
    status = client.wait(running, seconds=10)
    assert status["state"] == "cancelled"
    assert 0 < status["steps_done"] < LONG
    refused = client.http.get(f"/v1/edits/{running}/result")
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "the edit is cancelled: cancelled while it was made",
    )
    assert client.http.delete(f"/v1/edits/{running}").json()["state"] == "cancelled"  # once more


@pytest.mark.slow
def test_twenty_clients_get_their_own_edits(service: Service, video: Path, killed: Killed) -> None:
    def edit(number: int) -> bytes:
        client = ServiceClient(service.url, killed.token)
        answer = client.submit(video, seed=number)
        assert answer.status_code == 202, answer.text
        status = client.wait(answer.json()["id"])
        assert status["state"] == "done", status
        return client.http.get(status["result"]).content

    with ThreadPoolExecutor(20) as threads:
        results = list(threads.map(edit, range(20)))
    assert len(set(results)) == 20
    assert edit(7) == results[7]  # each is that of its own seed


@pytest.mark.slow
def test_a_full_queue_says_to_come_again(service: Service, video: Path) -> None:
    client = service.client
    running = client.submit(video, steps=LONG).json()["id"]
    client.wait(running, "running")
    waiting = [client.submit(video).json()["id"] for _ in range(QUEUE)]
    assert client.status(waiting[-1])["position"] == QUEUE
    answer = client.submit(video)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    for id in (*waiting, running):
        client.http.delete(f"/v1/edits/{id}")
    assert client.wait(running)["state"] == "cancelled"
    assert client.submit(video).status_code == 202


@pytest.mark.slow
def test_who_breaks_off_in_the_middle_leaves_nothing_behind(service: Service, video: Path) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    own = f"Host: {host}:{port}\r\nAuthorization: Bearer {service.client.token}\r\n"
    form = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="video1"; filename="a.mp4"\r\n\r\n'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST /v1/edits HTTP/1.1\r\n{own}{form}\r\n{part}".encode() + b"x" * 200_000)
        _until(lambda: any((service.queue.folder / "staged").glob("*")))
    _until(lambda: not any((service.queue.folder / "staged").glob("*")))
    assert service.queue._reserved == 0

    large = service.client.submit(video, size=[1024, 1536])
    status = service.client.wait(large.json()["id"])
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET {status['result']} HTTP/1.1\r\n{own}\r\n".encode())
        assert b" 200 " in connection.recv(1000)
    assert service.client.http.get(status["result"]).status_code == 200


def _until(holds: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_tokens_decide_who_is_served_and_sees_what(service: Service, video: Path, killed: Killed) -> None:
    id = service.client.submit(video).json()["id"]
    other = ServiceClient(service.url, add_token(killed.tokens, "bob"))  # while the service runs
    assert other.http.get(f"/v1/edits/{id}").status_code == 404
    assert other.http.delete(f"/v1/edits/{id}").status_code == 404
    assert other.submit(video).status_code == 202
    for token in ("", "wrong", other.token[:-1]):
        for path in ("/v1/models", "/metrics", f"/v1/edits/{id}"):
            answer = ServiceClient(service.url, token).http.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert ServiceClient(service.url).submit(video).status_code == 401
    assert httpx.get(f"{service.url}/v1/health").json()["status"] == "ok"
    text = killed.tokens.read_text()
    killed.tokens.write_text("nothing that is a token\n")
    assert service.client.http.get("/v1/models").status_code == 503  # and nobody is let in
    killed.tokens.write_text(text)
    assert service.client.wait(id)["state"] == "done"


@pytest.mark.slow
def test_what_is_too_large_is_refused_before_and_while_it_comes(service: Service) -> None:
    post, large = service.client.http.post, 1_200_000
    for content in (b"x" * large, (b"x" * 10_000 for _ in range(large // 10_000))):
        answer = post("/v1/uploads", content=content)
        assert (answer.status_code, answer.json()["detail"]) == (413, "a request has at most 1 MB")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "files", "status", "line"),
    [
        ({"text": "<video1> Go."}, {}, 422, "the text names <video1> but no such media is given"),
        ({"text": "Go."}, {"video1": b"?"}, 422, "media 'video1' is given but the text does not name"),
        ({"text": "<video1> Go."}, {"video1": b"no video"}, 422, "video1.video: not a video file"),
        ({"text": "<image1> Go."}, {"image1": b"\x89PNG?"}, 422, "image1.png: not an image"),
        ({"text": "<video1> Go.", "settings": '{"steps": 1e9}'}, {}, 422, "settings.steps: "),
        ({"text": "<video1> Go.", "settings": '{"paint": 1}'}, {}, 422, "settings.paint: extra inputs"),
        ({"text": "<video1> Go.", "settings": "{"}, {}, 422, "settings: not JSON"),
        ({"text": "A fox. <video1>", "settings": '{"frames": 21}'}, {}, 422, "frames: 21 is too long"),
        ({"text": "x" * 5000}, {}, 422, "text: 5000 characters"),
        ({}, {"../../x": b"?"}, 422, "media '../../x': names are"),
        ({}, {}, 415, "an edit is sent as multipart/form-data"),
    ],
)
def test_a_request_at_fault_gets_one_line(
    service: Service, data: dict[str, str], files: dict[str, bytes], status: int, line: str
) -> None:
    before = list((service.queue.folder / "edits").iterdir())
    kind = {} if status == 415 else {"files": files or {"": b""}}
    if status != 415 and not files:  # a form all the same
        kind = {"files": {name: (None, value) for name, value in data.items()}}
    answer = service.client.http.post("/v1/edits", data=data if files else None, **kind)  # type: ignore[arg-type]
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.json()["detail"].startswith(line)
    assert "\n" not in answer.json()["detail"]
    assert str(service.queue.folder) not in answer.text
    assert list((service.queue.folder / "edits").iterdir()) == before


@pytest.mark.slow
def test_a_page_of_another_site_is_not_served(service: Service) -> None:
    for headers in (
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert service.client.http.post("/v1/edits", headers=headers).status_code == 403
    own = service.client.http.get("/v1/models", headers={"origin": service.url})
    assert own.status_code == 200


@pytest.mark.slow
def test_nothing_that_is_asked_for_by_the_schema_is_a_fault_of_ours(service: Service) -> None:
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    seen: Counter[int] = Counter()
    for operation in schema.get_all_operations():
        send_examples(operation.ok(), {"authorization": f"Bearer {service.client.token}"}, seen)
    assert seen[200] > 20, seen
    assert seen[422] > 5, seen


@pytest.mark.slow
def test_metrics_are_what_prometheus_reads(service: Service) -> None:
    answer = service.client.http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert all(METRIC.fullmatch(line) for line in lines if not line.startswith("#"))
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['editverse_edits_total{state="done"}']) >= 1
    assert values["editverse_edit_seconds_count"] == values['editverse_edit_seconds_bucket{le="+Inf"}']
    assert values["editverse_workers_ready"] == "1"
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(typed) == len(set(typed))


@pytest.mark.slow
def test_the_node_gives_back_edited_frames(
    service: Service, nodes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITVERSE_SERVER", service.url)
    monkeypatch.setenv("EDITVERSE_TOKEN", service.client.token)
    node = nodes.NODE_CLASS_MAPPINGS["EditVerseEdit"]()
    frames = torch.rand(3, *SIZE, 3)
    edited, about = node.edit(frames, "Make it night.", mask=torch.ones(1, *SIZE), reference=frames[:1])
    assert edited.shape == frames.shape
    assert edited.dtype == torch.float32
    assert 0 <= edited.min() < edited.max() <= 1
    assert about.startswith("3 frames")
    assert node.edit(frames[:1], "<image1> Make it night.")[0].shape == (1, *SIZE, 3)
    with pytest.raises(nodes.ServiceError, match=r"the text names <video7>"):
        node.edit(frames, "<video1> and <video7>. Go.")
    monkeypatch.setenv("EDITVERSE_TOKEN", "wrong")
    with pytest.raises(nodes.ServiceError, match="a token is needed"):
        node.edit(frames, "Make it night.")


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """No file of a process may grow, which the system reports like a full disk, but for the number."""
    process = psutil.Process(pid)
    limits = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, limits)


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_done(service: Service, video: Path) -> None:
    client, worker = service.client, service.queue.pool.slots[0].process.pid
    running = client.submit(video, steps=120).json()["id"]
    client.wait(running, "running")
    with full_disk(os.getpid()):
        for answer in (client.http.post("/v1/uploads", content=b"x" * 100_000), client.submit(video)):
            assert answer.status_code in (503, 507), answer.text
            assert answer.headers["retry-after"] == "10"
        assert client.wait(running)["state"] == "done"  # which the table could not be told
    with full_disk(worker):
        id = client.submit(video).json()["id"]
        status = client.wait(id)
    assert (status["state"], status["detail"]) == ("failed", "[Errno 27] File too large: 'result.mp4'")
    assert client.wait(client.submit(video).json()["id"])["state"] == "done"
    assert client.status(running)["state"] == "done"


@pytest.mark.slow
def test_nothing_new_is_taken_in_at_the_end(service: Service, video: Path) -> None:
    service.queue.is_draining = True
    try:
        answer = service.client.submit(video)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert httpx.get(f"{service.url}/v1/health").status_code == 503
    finally:
        service.queue.is_draining = False


@pytest.mark.slow
def test_a_dead_worker_is_started_again_and_its_edit_once_more(service: Service, video: Path) -> None:
    """The last test with this service: at its end there is no worker."""
    client, slot = service.client, service.queue.pool.slots[0]
    id = client.submit(video, steps=LONG).json()["id"]
    for death in (1, 2):
        client.wait(id, "running")
        before = slot.process.pid
        os.kill(before, signal.SIGKILL)
        _until(lambda before=before: slot.process.pid != before or slot.work is None)
        if death == 1:
            status = client.status(id)
            assert status["state"] == "queued"
            assert status["detail"].startswith("worker 0 on cpu ended with signal 9 while it made this edit")
    status = client.wait(id)
    assert status["state"] == "failed"
    assert "the second time" in status["detail"]
    assert service.queue.gauges()["editverse_worker_restarts"][1] >= 1


# Without a worker.


def test_the_node_sends_frames_and_masks_as_they_are(nodes: ModuleType, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 46, 3), dtype=np.uint8)
    as_floats = torch.from_numpy(pixels.astype(np.float32) / 255)
    name, content = nodes.encode_video(nodes.to_bytes(as_floats), 12.5)
    (tmp_path / name).write_bytes(content)
    frames, fps = read_video(tmp_path / name)
    assert np.array_equal(frames, pixels)
    assert fps == 12.5
    marks = pixels[..., 0] > 127
    (tmp_path / "mask.mkv").write_bytes(nodes.encode_video(np.where(marks, np.uint8(255), np.uint8(0)), 8)[1])
    assert np.array_equal(read_mask(tmp_path / "mask.mkv"), marks)


def test_a_token_is_stored_as_its_hash_and_gone_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    anna, bob = (add_token(path, name) for name in ("anna", "bob"))
    assert path.stat().st_mode & 0o077 == 0
    assert anna not in path.read_text()
    tokens = Tokens(path)
    assert [tokens.owner(token) for token in (anna, bob, "", anna[:-1], "é" * 300)] == [
        *("anna", "bob", None),
        *(None, None),
    ]
    path.write_text(path.read_text().splitlines()[1] + "\n")
    assert (tokens.owner(anna), tokens.owner(bob)) == (None, "bob")
    with pytest.raises(SettingError, match="--name bob: has a token"):
        add_token(path, "bob")
    path.write_text("nothing\n")
    with pytest.raises(SettingError, match="line 1 is no hash and name"):
        Tokens(path)


def test_others_reach_a_service_with_tokens_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--host 0\.0\.0\.0: others would reach the service"):
        ServeConfig(tmp_path, host="0.0.0.0")
    for options in ({"insecure": True}, {"tokens": tmp_path / "tokens"}):
        assert ServeConfig(tmp_path, host="0.0.0.0", **options).host == "0.0.0.0"  # type: ignore[arg-type]
    assert ServeConfig(tmp_path, host="::1").is_local


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_oldest_results_go_to_make_room(tmp_path: Path) -> None:
    queue = EditQueue(
        ServeConfig(tmp_path, max_stored_mb=3, keep_hours=1), WorkerConfig("none", device="cpu")
    )
    (tmp_path / "staged").mkdir()
    queue.store = EditStore(tmp_path)
    for number, state in enumerate(("done", "queued", "done")):
        folder = tmp_path / "edits" / str(number)
        folder.mkdir(parents=True)
        (folder / "video1.mp4").write_bytes(bytes(900_000))
        record = EditRecord(
            str(number), "", state, "Go.", {}, {}, "result.mp4", 0.0, finished=time.time() + number
        )  # type: ignore[arg-type]
        queue.store.add(record)
    with queue.staging(1_000_000) as folder:
        assert names_in(tmp_path / "edits") == ["1", "2"]
        (folder / "file").write_bytes(b"x")
        with pytest.raises(RequestRefused, match="no result can go") as refused, queue.staging(2_000_000):
            pass
        assert refused.value.status == 507
    assert names_in(tmp_path / "edits") == ["1"]  # one that waits is never removed
    assert names_in(tmp_path / "staged") == []
    queue.store.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": [32]}, "settings.size: "),
        ({"frames": 0}, "settings.frames: "),
        ({"frames": True}, "settings.frames: "),
        ({"guidance": float("nan")}, "settings.guidance: input should be a finite number"),
        ({"seed": -1}, "settings.seed: input should be greater than or equal to 0"),
        ({"solver": "rk45"}, "settings.solver: input should be 'euler', 'midpoint'"),
        ({"progress": None}, "settings.progress: extra inputs are not permitted"),
        ([], "settings: input should be a valid dictionary"),
    ],
)
def test_settings_at_fault_are_named(settings: object, message: str) -> None:
    with pytest.raises(SettingError) as error:
        read_settings(settings)
    assert str(error.value).startswith(message)


def test_a_histogram_counts_up_to_each_bound() -> None:
    metrics = Metrics()
    for seconds in (0.5, 0.7, 1e6):
        metrics.observe("s", "Seconds.", seconds)
    metrics.count("c", "Counts.", label='a"b\\c\nd')
    lines = metrics.render({"g": ("A gauge.", 2)}).splitlines()
    counts = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("s_bucket")]
    assert counts == ["1", *["2"] * 11, "3"]
    assert 's_bucket{le="+Inf"} 3' in lines
    assert r'c{label="a\"b\\c\nd"} 1' in lines
    assert lines[-3:] == ["# HELP g A gauge.", "# TYPE g gauge", "g 2"]


def table(folder: Path, *rows: str, columns: str = "text,video1,out,seed,frames") -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def test_a_table_is_checked_whole_before_any_edit(video: Path, tmp_path: Path) -> None:
    good = table(tmp_path, f"<video1> Go.,{video},a.mp4,,0:3", "A fox. <image1>,,b.png,7,")
    rows = read_table(good, tmp_path / "out", {})
    assert [row.settings for row in rows] == [{"frames": [0, 3]}, {"seed": 7}]
    bad = [
        (f"<video1> Go.,{video},a.png,,", "out a.png: this edit makes a .mp4"),
        (f"<video1> Go.,{video}x,a.mp4,,", "no such file"),
        (f"<video1> Go.,{video},../a.mp4,,", "is no path inside"),
        (f"<video1> Go.,{video},a.mp4,soon,", "settings.seed: "),
        (f"<video1> Go.,{video},a.mp4", "another number of fields"),
        ("Go.,,,,", "out: is empty"),
    ]
    for row, message in bad:
        with pytest.raises(SettingError) as error:
            read_table(table(tmp_path, "A fox. <image1>,,z.png,,", row), tmp_path / "out", {})
        assert str(error.value).startswith(f"{tmp_path / 'table.csv'}: row 2: ")
        assert message in str(error.value)
    with pytest.raises(SettingError, match=r"row 2: out b.png: is that of row 1 too; wrong too: rows 3 "):
        read_table(table(tmp_path, *["A fox. <image1>,,b.png,,"] * 3), tmp_path / "out", {})
    with pytest.raises(SettingError, match="column 'sead'"):
        read_table(table(tmp_path, "a,b,c", columns="text,out,sead"), tmp_path / "out", {})


def test_only_rows_that_are_done_and_still_there_are_not_made_again(tmp_path: Path) -> None:
    lines = [f"A fox {number}. <image1>,,{number}.png,," for number in range(5)]
    rows = read_table(table(tmp_path, *lines), tmp_path, {})
    journal = BatchJournal(tmp_path, rows)
    for row, state in zip(rows, ("done", "done", "failed", "done", "done"), strict=True):
        (tmp_path / row.out).write_bytes(b"png")
        journal.add(row, Outcome(state, "one, line", 1.5), 3)  # type: ignore[arg-type]
    (tmp_path / "1.png").unlink()
    path = tmp_path / "results.csv"
    path.write_bytes(path.read_bytes()[:-20])  # killed while the last line was written
    lines[3] = "Another fox. <image1>,,3.png,,"
    again = read_table(table(tmp_path, lines[4], *lines[:4]), tmp_path, {})
    assert set(BatchJournal(tmp_path, again).lines) == {"2"}  # the first of before, by its new number
    assert len(path.read_text().splitlines()) == 2
    other = read_table(table(tmp_path, *lines), tmp_path, {"files": ["another checkpoint"]})
    assert BatchJournal(tmp_path, other).lines == {}


@pytest.mark.slow
def test_a_batch_makes_what_is_left_and_tells_what_failed(
    checkpoint: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(
        tmp_path,
        f"<video1> Go.,{video},sub/a.mp4,1,",
        f"<video1> Go.,{video},b.mp4,2,0:99",  # beyond its end, which the worker sees
        "A fox. <image1>,,c.png,3,",
    )
    out, config = tmp_path / "out", WorkerConfig(str(checkpoint), device="cpu", workers=1)
    assert run_batch(path, out, config) == 1
    lines = [line.split(",") for line in (out / "results.csv").read_text().splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["1", "sub/a.mp4", "done"],
        ["2", "b.mp4", "failed"],
        ["3", "c.png", "done"],
    ]
    assert read_video(out / "sub/a.mp4")[0].shape == (5, *SIZE, 3)
    assert "2/3 failed: b.mp4: " in capsys.readouterr().out
    assert not (out / "b.mp4").exists()

"""What a study's server answers a second: pages, votes and videos, on SQLite and on PostgreSQL.

The server is a process of its own, its clients twenty threads of this one, so that both share the machine's
cores. A vote is on disk when it is answered. Videos are asked for as a browser does, by `Range: bytes=0-`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmark.study.creation import create_study
from benchmark.study.database import TrialRow
from benchmark.study.definition import StudyDefinition
from benchmark.study.folder import open_study
from benchmark.study.store import Store
from shards.media import write_video
from tests.benchmark.study.postgres import postgres
from tests.benchmark.study.visitors import CSRF, ROOT, TRIAL
from tests.benchmark.synthetic import CATEGORIES
from tests.perf.measure import Figure, scene

CLIENTS = 20
METHODS = ("alpha", "bravo", "charlie")
FRAMES, HEIGHT, WIDTH, FPS = 48, 360, 640, 24.0
SERVE = """
import sys
from pathlib import Path
from benchmark.study.security import ServeSettings
from benchmark.study.serve import serve
many = ("1000000 per minute", "1000000 per minute")
settings = ServeSettings("http://127.0.0.1:" + sys.argv[2], limits={"vote": many, "link": many})
serve(Path(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), settings, False, int(sys.argv[3]))
"""


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Serve the same study by one process and by two, and from PostgreSQL."""
    definition = material(scratch, items=2 if quick else 6)
    figures = []
    with postgres() as cluster:
        for backend, workers in (("SQLite", 1), ("SQLite", 2), ("PostgreSQL", 2)):
            folder = scratch / f"{backend}-{workers}"
            create_study(definition, folder, cluster.database() if backend == "PostgreSQL" else None)
            name = f"{backend}, {workers} process{'es' if workers > 1 else ''}"
            figures += served(name, folder, workers)
    return figures


def material(root: Path, items: int) -> StudyDefinition:
    """A study in which each of twice as many raters as clients sees every comparison."""
    source, target, _ = scene(FRAMES, HEIGHT, WIDTH)
    entries = {}
    for number in range(items):
        path = root / "data" / "videos" / f"{number}.mp4"
        write_video(path, np.roll(source, 8 * number, axis=2), FPS)
        entries[str(number)] = {
            "<text>": "<video1> Remove the disc.",
            "<video1>": f"videos/{number}.mp4",
            "direction": "horizontal",
            "target_prompt": "A plate.",
            "source_prompt": "A disc before a plate.",
            "type": CATEGORIES[number % len(CATEGORIES)],
        }
        for shift, method in enumerate(METHODS, start=1):
            made = np.roll(target, (8 * number, shift), axis=(2, 1))
            write_video(root / "results" / method / str(number) / "generate.mp4", made, FPS)
    (root / "data" / "test.json").write_text(json.dumps(entries))
    return StudyDefinition(
        name="Which edit is better?",
        data=str(root / "data"),
        methods={name: str(root / "results" / name) for name in METHODS},
        pairs=3 * items,
        raters=2 * CLIENTS,
        raters_per_pair=2 * CLIENTS,
        practice=0,
        gold_ties=0,
        gold_losses=0,
        repeats=0,
        height=HEIGHT,
    )


class Client:
    """A rater's connection, which stays open.

    Attributes:
        times: seconds of each answer by kind.
        size: bytes of video; refused: answers 503.
    """

    def __init__(self, port: int, token: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers: dict[str, str] = {}
        self.times: dict[str, list[float]] = defaultdict(list)
        self.size = self.refused = 0
        self.connection.request("GET", f"/r/{token}")
        answer = self.connection.getresponse()
        answer.read()
        self.headers["cookie"] = (answer.getheader("set-cookie") or "").partition(";")[0]
        self.page()

    def ask(self, kind: str, method: str, path: str, body: str | None = None, **headers: str) -> bytes:
        """One request, sent again while the answer is 503; its time is that of all its tries."""
        begin = time.perf_counter()
        while True:
            self.connection.request(method, path, body, self.headers | headers)
            answer = self.connection.getresponse()
            content = answer.read()
            if answer.status != 503:
                break
            self.refused += 1
        self.times[kind].append(time.perf_counter() - begin)
        assert answer.status in (200, 206), (answer.status, content[:200])
        return content

    def page(self) -> None:
        """The next comparison."""
        text = self.ask("page", "GET", "/study?begin=1").decode()
        trial, csrf = re.search(TRIAL, text), re.search(CSRF, text)
        self.trial, self.csrf = (trial[1], csrf[1]) if trial and csrf else ("", self.csrf)

    def vote(self, trial: str) -> None:
        """A vote on a comparison of theirs."""
        answers = dict.fromkeys(("alignment", "preservation", "aesthetics"), "left")
        body = json.dumps({"trial": trial, "answers": answers, "seconds": 9.5})
        more = {"content-type": "application/json", "x-csrf-token": self.csrf}
        self.ask("vote", "POST", "/vote", body, **more)

    def videos(self, trial: str) -> None:
        """The three videos of a comparison."""
        for slot in ("source", "left", "right"):
            self.size += len(self.ask("video", "GET", f"/media/{trial}/{slot}", **{"range": "bytes=0-"}))


def served(name: str, folder: Path, workers: int) -> list[Figure]:
    """What one server does: each kind of request by itself, then as raters send them."""
    store = open_study(folder)
    tokens = [store.invite(f"rater {number}")[1] for number in range(2 * CLIENTS)]
    trials = [trials_of(store, seat) for seat in range(2 * CLIENTS)]
    store.engine.dispose()
    figures = []

    def together(kinds: Sequence[str], seats: range, work: Callable[[Client, list[str]], None]) -> None:
        clients = [Client(port, tokens[seat]) for seat in seats]
        for client in clients:
            client.times.clear()
        begin = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(work, clients, [trials[seat] for seat in seats]))
        took = time.perf_counter() - begin
        mixed = "as raters send them" if len(kinds) > 1 else "alone"
        for kind in kinds:
            times = np.array([second for client in clients for second in client.times[kind]])
            rate = f"{len(times) / took:,.0f}/s, 95 % within {1000 * np.quantile(times, 0.95):.0f} ms"
            if refused := sum(client.refused for client in clients):
                rate += f", {refused} refused for now"
            if kind == "video":
                rate += f", {sum(client.size for client in clients) / took / 1e6:,.0f} MB/s"
            what = f"{name}: {kind}s {mixed}"
            figures.append(Figure(what, 1000 * float(np.median(times)), 1000 * times.min(), "ms", rate))

    def look(client: Client, mine: list[str]) -> None:
        for _ in mine:
            client.page()

    def watch(client: Client, mine: list[str]) -> None:
        for trial in mine[:20]:
            client.videos(trial)

    def decide(client: Client, mine: list[str]) -> None:
        for trial in mine:
            client.vote(trial)

    def rate(client: Client, mine: list[str]) -> None:
        for trial in mine:
            client.videos(trial)
            client.vote(client.trial)
            if trial != mine[-1]:
                client.page()

    with server(folder, workers) as port:
        first, second = range(CLIENTS), range(CLIENTS, 2 * CLIENTS)
        together(["page"], first, look)
        together(["video"], first, watch)
        together(["vote"], first, decide)
        together(["page", "video", "vote"], second, rate)
    votes = open_study(folder).votes()
    assert len(votes) == sum(len(mine) for mine in trials)  # none was lost on the way
    return figures


def trials_of(store: Store, seat: int) -> list[str]:
    """A seat's trials in their order."""
    with Session(store.engine) as session:
        query = select(TrialRow.id).where(TrialRow.seat == seat).order_by(TrialRow.position)
        return list(session.scalars(query))


@contextmanager
def server(folder: Path, workers: int) -> Iterator[int]:
    """A server's port while the block runs."""
    port = 18080 + os.getpid() % 1000
    command = [sys.executable, "-c", SERVE, str(folder), str(port), str(workers)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        for _ in range(200):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=60)

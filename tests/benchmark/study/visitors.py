"""Raters as their browsers are for a server: requests over HTTP, and a server process to send them to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[3]
TRIAL = re.compile(r'data-trial="([^"]+)"')
CSRF = re.compile(r'data-csrf="([^"]+)"')


class Visitor:
    """One rater.

    Args:
        client: that keeps their cookies.
        token: of their link.

    Attributes:
        page: the HTML that they see; trial, csrf: what it says.
    """

    def __init__(self, client: httpx.Client, token: str) -> None:
        self.client, self.token = client, token
        self.page, self.trial, self.csrf = "", "", ""

    def enter(self) -> None:
        """Open the link."""
        answer = self.client.get(f"/r/{self.token}", follow_redirects=True)
        assert answer.status_code == 200, answer.text

    def open(self) -> bool:
        """Open the next pair; False when there is none left."""
        answer = self.client.get("/study?begin=1", follow_redirects=True)
        answer.raise_for_status()
        self.page = answer.text
        found, csrf = TRIAL.search(self.page), CSRF.search(self.page)
        self.trial = found[1] if found else ""
        self.csrf = csrf[1] if csrf else ""
        return found is not None

    def vote(self, answers: dict[str, str], seconds: float = 5.0) -> httpx.Response:
        """Vote on the pair that is open."""
        ballot = {"trial": self.trial, "answers": answers, "seconds": seconds}
        return self.client.post("/vote", json=ballot, headers={"x-csrf-token": self.csrf.encode()})


class Server:
    """`python -m benchmark study serve` in a process of its own."""

    def __init__(self, study: Path, port: int) -> None:
        self.study, self.port = study, port
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            sys.executable,
            "-m",
            "benchmark",
            "study",
            "serve",
            str(self.study),
            "--port",
            str(self.port),
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "the study" in line, line + self.process.stdout.read()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def stop(self) -> str:
        """End it as Ctrl-C does; what it printed since it started."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        printed, _ = self.process.communicate(timeout=30)
        return printed

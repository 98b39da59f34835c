"""Where a service listens, and how much it takes."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from shards.errors import SettingError
from shards.limits import in_range


@dataclass(frozen=True)
class ServeConfig:
    """Where a service listens, and how much it takes and keeps.

    Attributes:
        out: folder of its edits, with their uploads and results.
        host: address to listen on.
        port: to listen on; 0 for any that is free.
        tokens: file of those who may use it, see `serving.tokens`; None for everybody who can reach it.
        allowed_hosts: names under which it is reached, besides the loopback ones and `host`.
        queue: edits that may wait.
        max_upload_mb: largest request, in megabytes.
        max_frames: longest video, in and out.
        max_steps: most solver steps of an edit.
        edit_timeout: seconds that a worker may be at an edit, 0 for ever.
        keep_hours: for which uploads and results are kept.
        max_stored_mb: uploads and results together, in megabytes; the oldest results go first.
        grace_seconds: for which edits that were begun may go on when the service is told to end.
        insecure: it may be reached from elsewhere without tokens.
    """

    out: Path
    host: str = "127.0.0.1"
    port: int = 8000
    tokens: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    queue: int = 32
    max_upload_mb: int = 200
    max_frames: int = 300
    max_steps: int = 100
    edit_timeout: float = 3600.0
    keep_hours: float = 24.0
    max_stored_mb: int = 10_000
    grace_seconds: float = 30.0
    insecure: bool = False

    def __post_init__(self) -> None:
        for name in ("queue", "max_upload_mb", "max_frames", "max_steps", "max_stored_mb"):
            in_range(name, getattr(self, name), 1, 10**9)
        in_range("port", self.port, 0, 65535)
        in_range("edit_timeout", self.edit_timeout, 0, 10**9)
        in_range("keep_hours", self.keep_hours, 0, 10**6)
        in_range("grace_seconds", self.grace_seconds, 0, 10**6)
        for host in self.allowed_hosts:
            if not re.fullmatch(r"[a-z0-9._-]+", host):
                raise SettingError(f"allowed_hosts: {host!r} is no host's name in lower case, without port")
        if not (self.is_local or self.tokens or self.insecure):
            raise SettingError(
                f"--host {self.host}: others would reach the service; give --tokens FILE (make one with "
                "`python -m model token`), or --insecure"
            )

    @property
    def is_local(self) -> bool:
        """Whether it is reached from this machine alone."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

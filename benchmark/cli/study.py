"""`python -m benchmark study ...`: a human study from its definition to its ranking."""

from __future__ import annotations

from pathlib import Path

from benchmark.study.definition import read_definition
from shards.help_pages import help_page


def create(definition: str = "study.yaml", out: str = "runs/mystudy", database: str | None = None) -> None:
    """Make a study: its videos, who compares what, and an empty database for the votes.

    Args:
        definition: YAML file of the study
        out: a new folder
        database: postgresql://USER@HOST/NAME; if not given, SQLite in the folder
    """
    from benchmark.study.creation import create_study  # SQLAlchemy, which other commands need not

    made = create_study(read_definition(Path(definition)), Path(out), database)
    trials = [len(seat) for seat in made.design.seats]
    print(f"{made.items} items, {len(trials)} raters with {max(trials)} pairs each")
    print(f"study: {made.folder}")


@help_page(
    sections={"proxy": ("behind a reverse proxy", ("base_url", "trusted_hosts", "forwarded_allow_ips"))}
)
def serve(
    study: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    base_url: str | None = None,
    trusted_hosts: tuple[str, ...] = (),
    forwarded_allow_ips: str = "",
    insecure: bool = False,
    workers: int = 1,
) -> None:
    """Serve a study's pages to its raters until Ctrl-C.

    Args:
        study: its folder
        host: address to listen at; others than this machine's own need --base-url with https
        port: 0 for any that is free
        base_url: the address that raters open, such as https://study.example.org
        trusted_hosts: further names under which it is opened
        forwarded_allow_ips: addresses of proxies whose X-Forwarded-For and -Proto are believed
        insecure: serve other machines without https, where nobody can listen
        workers: processes
    """
    from benchmark.study.security import ServeSettings  # FastAPI, as the next one
    from benchmark.study.serve import serve as serve_study  # which other commands need not

    settings = None
    if base_url is not None or trusted_hosts or forwarded_allow_ips:
        shown = f"[{host}]" if ":" in host else host
        settings = ServeSettings(base_url or f"http://{shown}:{port}", trusted_hosts, forwarded_allow_ips)
    serve_study(Path(study), host, port, settings, insecure, workers)

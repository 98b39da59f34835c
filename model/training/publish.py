"""`python -m model push`: a run's weights and their card, to the model hub."""

from __future__ import annotations

from pathlib import Path

from model.inference.hub import check_repository, files_to_publish
from model.inference.hub import push as push_files
from model.inference.model_card import CARD
from model.inference.wan_lora import FIRST
from model.training.run_card import run_card
from shards.errors import ConfigError, EditVerseError, first_line
from shards.files import write_bytes
from shards.limits import read_text


def push(
    checkpoint: Path,
    repo: str,
    private: bool = False,
    run: Path | None = None,
    license: str | None = None,
    datasets: list[str] = [],  # noqa: B006 (never changed)
    about: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Publish a model on the model hub with a card that is filled from its run: data, recipe, scores.

    The token is that of `hf auth login`, or the variable HF_TOKEN.

    Args:
        checkpoint: a finished run's folder, a checkpoint's, or a pipeline's in diffusers' layout; of a run
            that trained an adapter to Wan's family, the adapter is published.
        repo: owner/name; it is made if it is not there.
        private: make it a private one.
        run: folder of the run that the card is filled from; the checkpoint's own when not given.
        license: of the weights, e.g. apache-2.0; that of a known base when not given.
        datasets: owner/name of data sets on the hub that it was trained on.
        about: Markdown with level-2 headings that the card ends with, e.g. of `editverse speedrun card`.
        dry_run: write the card into the run's folder and list the files, without the network.
    """
    check_repository(repo)
    files = files_to_publish(checkpoint)
    run = run or (checkpoint if (checkpoint / "run.json").is_file() else checkpoint.parent)
    card = run_card(run, license, tuple(datasets), adapter=FIRST in files)
    page = card.render(repo)
    if about is not None:
        page = f"{page}\n{_read_about(about)}"
    if card.license == "unknown":
        print("the card says `license: unknown`; name the licence of the weights with --license")
    if not dry_run:
        print(push_files(repo, files, page, private))
        return 0
    write_bytes(run / CARD, page.encode())
    for name, file in files.items():
        print(f"{name}: {file.stat().st_size / 1e6:.1f} MB")
    print(f"{CARD}: written to {run / CARD}; nothing was sent")
    return 0


def _read_about(path: Path) -> str:
    """The text of a file; ConfigError where it cannot be read."""
    try:
        return f"{read_text(path).strip()}\n"
    except (OSError, EditVerseError) as error:
        raise ConfigError(f"--about {path}: cannot be read: {first_line(error)}") from error

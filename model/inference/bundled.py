"""The weights that come with the package, by name; no torch is needed to find them."""

from __future__ import annotations

from pathlib import Path

CONFIG, INDEX = "config.json", "model_index.json"
PARTS = (
    "transformer",
    "transformer_2",
    "vae",
    "text_encoder",
    "tokenizer",
    "scheduler",
)  # of a pipeline in diffusers' layout
BUNDLED = Path(__file__).resolve().parents[1] / "weights"


def shipped(path: Path) -> Path:
    """The folder of weights that come with the package, if `path` is their name and no own folder."""
    named = not path.exists() and len(path.parts) == 1 and (BUNDLED / path / CONFIG).is_file()
    return BUNDLED / path if named else path


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a pipeline in diffusers' layout, rather than a checkpoint of ours."""
    if (folder / INDEX).is_file():
        return True
    return (folder / "transformer").is_dir() and (folder / CONFIG).is_file()

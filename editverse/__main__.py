"""`editverse curate|train|edit|bench ...`: the common commands by short names, the others by their package.

`editverse train --config my.yaml` is `python -m model fit --config my.yaml`, and so on.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from typing import Any

from shards.command import run_command

# name -> (package, its command, what it does)
SHORT: dict[str, tuple[str, str, str]] = {
    "curate": (
        "curation",
        "run",
        "make pairs and shards: editverse curate object_removal --clips DIR",
    ),
    "train": (
        "model",
        "fit",
        "train an editor: editverse train --config configs/train/nano.yaml",
    ),
    "edit": ("model", "edit", "edit a video or an image by an instruction"),
    "app": ("model", "app", "serve a page to edit in"),
    "serve": ("model", "serve", "edit for other programs, over HTTP"),
    "batch": ("model", "batch", "make the edits that a table lists"),
    "bench": ("benchmark", "run", "score an editor, or folders of results, on a suite"),
}
# what `editverse data` reaches: command -> (package, what it does)
DATA: dict[str, tuple[str, str]] = {
    "import": ("curation", "make samples of the pairs of others: a table, a folder, a data set"),
    "export": ("curation", "write samples in the formats of others"),
    "grade": ("curation", "measure samples, and store what was measured"),
    "label": ("curation", "a page to keep or drop samples on"),
    "calibrate": ("curation", "thresholds from labels"),
    "filter": ("curation", "keep the samples that stored scores let through"),
    "ledger": ("shards", "where samples come from, and what they cost"),
    "stats": ("shards", "sizes, lengths, tasks and scores"),
    "browse": ("shards", "a page to look through samples on"),
}
SPEEDRUN = "from clips and a base to a scored editor: run, status, bill, ..."
PACKAGES: dict[str, str] = {
    "curation": "all commands of curation: clips, models, run, all, tasks",
    "model": "all commands of the model: fit, edit, app, plan, info, ...",
    "benchmark": "all commands of the benchmark: run, report, compare, ...",
    "shards": "look at shards and prove them: verify, ls, ledger, browse, ...",
}


def usage() -> str:
    """The help text."""
    rows = [(name, words) for name, (_, _, words) in SHORT.items()]
    rows += [("data", f"data in and out: {', '.join(list(DATA)[:5])}, ..."), ("speedrun", SPEEDRUN)]
    rows += PACKAGES.items()
    lines = "\n".join(f"  {name:<10} {words}" for name, words in rows)
    return (
        f"usage: editverse COMMAND ... | --help | --version\n\n{lines}\n\neditverse COMMAND --help says more."
    )


def data_usage() -> str:
    """The help text of `editverse data`."""
    lines = "\n".join(f"  {name:<10} {words}" for name, (_, words) in DATA.items())
    return f"usage: editverse data COMMAND ...\n\n{lines}\n\neditverse data COMMAND --help says more."


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(importlib.metadata.version("editverse"))
        return 0
    name, *rest = words
    if name == "data":
        if not rest or rest[0] in ("-h", "--help"):
            print(data_usage())
            return 0
        if rest[0] not in DATA:
            print(f"error: no command {rest[0]!r} of data; there are: {', '.join(DATA)}", file=sys.stderr)
            return 2
        package = DATA[rest[0]][0]
    elif name in SHORT:
        package, command, _ = SHORT[name]
        rest = [command, *rest]
    elif name in PACKAGES:
        package = name
    elif name == "speedrun":
        package = "editverse.speedrun"
    else:
        names = ", ".join([*SHORT, "data", "speedrun", *PACKAGES])
        print(f"error: no command {name!r}; there are: {names}", file=sys.stderr)
        return 2
    sys.argv = [f"python -m {package}", *rest]
    if package == "model" and any(word.startswith("--enhance") for word in rest):
        from model.inference.enhance import provide_enhancer  # brings numpy, which a usage text needs not

        provide_enhancer(_make_enhancer)
    return run_command(lambda: importlib.import_module(f"{package}.__main__").main())


def _make_enhancer(where: str, model: str | None) -> Any:
    from editverse.enhance import make_enhancer  # brings the language models' clients, which few edits ask

    return make_enhancer(where, model)


if __name__ == "__main__":
    sys.exit(main())

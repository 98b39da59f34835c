"""Commands for benchmarks that are scored by their own programs, see `benchmark.external`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from benchmark.cli.analysis import console
from benchmark.core.item import BenchmarkError
from benchmark.evaluation.setup import evenly_spaced
from benchmark.external import geneval, produce, vbench
from benchmark.systems.edit_cache import weights_folder
from shards.devices import choose_device
from shards.files import exclusive, write_json
from shards.media import probe
from shards.terminal import print_table

Name = Literal["geneval", "vbench"]


def program(name: Name) -> Any:
    """The adapter's module."""
    return {"geneval": geneval, "vbench": vbench}[name]


def generate(
    suite: Name = "geneval",
    data: str = "data/geneval",
    checkpoint: str = "nano",
    out: str = "runs/geneval",
    samples: int | None = None,
    limit: int | None = None,
    steps: int | None = None,
    device: str = "auto",
) -> None:
    """Make the pictures or videos that GenEval's or VBench's program scores; go on where it ended.

    Args:
        suite: geneval or vbench
        data: folder with the suite's list of prompts
        checkpoint: folder with config.json and model.safetensors, or the name of shipped weights
        out: the folder that the program is then run on
        samples: per prompt; as published if not given
        limit: only so many samples, spread evenly over all
        steps: solver steps; the checkpoint's own if not given
        device: of the model: auto, cpu or cuda
    """
    from model import Editor  # brings torch; finished results need none

    device = choose_device(device)
    folder = weights_folder(Path(checkpoint))
    # beside the folder: the program that is run on it takes every file for a result
    place = Path(out).absolute()
    with (
        exclusive(place.parent, f"--out {place.name} in", f".{place.name}.lock"),
        console.status("generating") as status,
    ):
        every = program(suite).wanted(Path(data), Path(out), samples)
        chosen = [every[n] for n in evenly_spaced(len(every), limit)]
        editor = Editor.from_pretrained(str(folder), device)
        made, there = produce(chosen, Path(out), editor, status.update, steps=steps)
    console.print(
        f"{out}: {made} made, {there} were there; {len(every)} in all", highlight=False, soft_wrap=True
    )
    if suite == "vbench":
        seconds = probe(Path(out) / chosen[0].place).seconds
        long = f"{seconds:.1f} s long: from {vbench.LONG:g} s on VBench-Long is to be used, not VBench"
        for line in [*vbench.NOTES, *([long] if seconds >= vbench.LONG else [])]:
            console.print(f"[yellow]note[/yellow] {line}", highlight=False, soft_wrap=True)


def collect(suite: Name = "geneval", results: str = "results.jsonl", out: str | None = None) -> None:
    """Read what GenEval's or VBench's program wrote, and aggregate it as published.

    Args:
        suite: geneval or vbench
        results: GenEval's results.jsonl, or the folder of VBench's *_eval_results.json, its folders included
        out: file for the numbers as JSON
    """
    from dataclasses import asdict

    from rich.table import Table

    if not Path(results).exists():
        raise BenchmarkError(f"--results {results}: not found")
    found = program(suite).collect(Path(results))
    table = Table(suite, title=f"{suite}, in percent")
    for name in ("mean", "95 %", "scored"):
        table.add_column(name, justify="right")
    for name, mean in found.parts.items():
        bounds = "n/a" if mean.low is None else f"{mean.low:.2f} to {mean.high:.2f}"
        table.add_row(name, f"{mean.value:.2f}", bounds, str(mean.scored))
    table.add_section()
    for name, total in found.totals.items():
        table.add_row(name, "-" if total is None else f"{total:.2f}", "", "")
    print_table(table)
    for remark in found.remarks:
        console.print(f"[yellow]note[/yellow] {remark}", highlight=False)
    if out is not None:
        write_json(Path(out), asdict(found))

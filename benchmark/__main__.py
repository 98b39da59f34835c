"""`python -m benchmark run|report|compare|faults|...`: scores, comparisons, pages and tables.

Errors are one line on stderr and exit status 2; a run in which nothing could be scored gives status 1.
"""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli
from rich.markup import escape

from benchmark.analysis.ablation import carry_out, markdown, read_study
from benchmark.cli import study, study_analysis, submission
from benchmark.cli.analysis import compare, console, correlate, faults, list_, power, published, rank, tables
from benchmark.cli.calibrate import calibrate
from benchmark.cli.external import collect, generate
from benchmark.cli.submit import submit
from benchmark.core.item import BenchmarkError
from benchmark.evaluation.results import RunConfig
from benchmark.evaluation.runner import device_of, execute, held
from benchmark.evaluation.setup import Evaluation
from benchmark.report.contact_sheet import write_gallery
from benchmark.report.html import write_report
from benchmark.report.published_csv import write_published
from benchmark.report.several import PAGE, beside, check_place, joined, names_of
from benchmark.report.tables import aggregate_table, terminal_table
from benchmark.report.training_curves import read_curves
from benchmark.suites.download import fetch as fetch_videos
from benchmark.systems.checkpoint_editor import EditSettings
from shards.command import Parser, run_command
from shards.errors import EditVerseError
from shards.files import exclusive, write_json
from shards.help_pages import help_page
from shards.limits import read_json
from shards.terminal import print_table

CURVES = ("curve.csv", "metrics.csv", "heldout.csv")


@help_page(
    sections={
        "editing": ("how edits are made", ("steps", "guidance", "seed", "frames", "ground")),
        "report": ("what the page shows", ("gallery", "page")),
    }
)
def run(
    suite: str = "heldout",
    data: str = "data/shards/object_removal",
    checkpoint: str | None = None,
    system: dict[str, str] = {},  # noqa: B006 (never changed)
    results: dict[str, str] = {},  # noqa: B006
    metrics: str | None = None,
    add_metrics: str | None = None,
    mode: Literal["official", "corrected"] = "corrected",
    out: str = "runs/bench",
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    frames: int | None = None,
    ground: tuple[str, ...] = (),
    limit: int | None = None,
    gallery: int = 48,
    page: Literal["file", "folder"] = "file",
    workers: int = 1,
    retry: int = 3,
    device: str = "auto",
) -> None:
    """Score editors, or folders of finished results, on a suite; write report.html and summary.json.

    What is stored in `out` is reused: a second run computes nothing, an interrupted one goes on.

    Args:
        suite: what to edit; `list` prints the suites
        data: the suite's data: a shard folder, or the benchmark's own
        checkpoint: folder with config.json and model.safetensors, a finished run's folder, or nano, whose
            edits are made and scored
        system: other editors by name, as JSON or one by one: --system.vace diffusers:FOLDER; also
            checkpoint:, command:, results:, an http address, or a YAML file, as in configs/systems
        results: folders of finished results by name, as JSON: {"ours": "folder"}
        metrics: YAML file of metrics, such as configs/benchmark/v2vbench.yaml; the suite's own if not given
        add_metrics: YAML file of metrics beside those
        mode: corrected, or official: as the published code computes
        out: output folder; it serves one configuration
        steps: solver steps; the checkpoint's own when not given
        guidance: text guidance; the checkpoint's own when not given
        seed: of the noise
        frames: length of the edits; the source's when not given
        ground: tasks whose edits first find their region, then edit within it
        limit: only so many items, spread evenly over the suite
        gallery: items with videos on the page at most
        page: file, which holds its videos; or folder, which names them: out with all in it goes to a web host
        workers: processes, one to a GPU with --device cuda
        retry: how often a score that failed (a judge was down), or an edit that failed, is asked for again,
            by later runs
        device: of the metrics' networks and of --system: auto, cpu or cuda
    """
    for name, value, least in (
        ("steps", steps, 1),
        ("frames", frames, 1),
        ("limit", limit, 1),
        ("gallery", gallery, 0),
        ("workers", workers, 1),
        ("retry", retry, 0),
    ):
        if value is not None and value < least:
            raise BenchmarkError(f"--{name} {value}: needs at least {least}")
    device = device_of(Path(out), device)
    settings = EditSettings(steps, guidance, seed, frames, ground=ground)
    config = RunConfig(
        suite, data, checkpoint, settings, limit, results, metrics, mode, device, add_metrics, system
    )
    evaluate_and_report(config, Path(out), None, gallery, page == "file", workers, retry)


def report(
    runs: list[str],
    out: str = "runs/bench",
    curves: str | None = None,
    gallery: int = 48,
    page: Literal["file", "folder"] = "file",
) -> None:
    """Write the page of a finished run again, or one page of several runs of a suite.

    Args:
        runs: folders of finished runs whose rows stand together on a page in out; none for the run in out
        out: the run's folder, or that of the page of several
        curves: CSV of the training run; curve.csv beside the checkpoint when not given
        gallery: items with videos on the page at most
        page: as for run
    """
    if runs:
        report_several([Path(folder) for folder in runs], Path(out), curves, gallery, page == "file")
        return
    evaluate_and_report(read_config(Path(out)), Path(out), curves, gallery, page == "file")


report.may_lack_words = True  # type: ignore[attr-defined]


def report_several(folders: list[Path], out: Path, curves: str | None, gallery: int, inside: bool) -> None:
    """Write the page of several runs, whose scores and videos are as their folders hold them."""
    check_place(out, folders)
    drawn = read_curves(Path(curves)) if curves else []
    made: dict[str, str] = {}
    done = {}
    for name, folder in zip(names_of(folders), folders, strict=True):
        bench = Evaluation(read_config(folder), folder)
        with held(folder):
            done[name] = execute(bench.config, folder, console, gallery, bench=bench)
            made |= {f"{name}, {key}": value for key, value in provenance(folder, fresh=False).items()}
    run = joined(done)
    with exclusive(out, "--out"):
        if not inside:
            beside(run, out)
        write_report(out / PAGE, run, drawn, made, inside)
        write_json(out / "items.json", run.items_out())
    print_table(terminal_table(run))
    for remark in run.all_remarks[:20]:
        console.print(f"[yellow]note[/yellow] {escape(remark)}", highlight=False)
    console.print(f"report: {(out / PAGE).resolve()}", highlight=False, soft_wrap=True, markup=False)


def read_config(out: Path) -> RunConfig:
    """The configuration of the run in a folder; BenchmarkError where there is none that can be read."""
    from pydantic import TypeAdapter, ValidationError

    path = out / "config.json"
    try:
        return TypeAdapter(RunConfig).validate_python(read_json(path))
    except FileNotFoundError:
        raise BenchmarkError(
            f"{path}: not found; `python -m benchmark run --out {out}` comes first"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg'][:200]}"
        raise BenchmarkError(f"{path}: damaged ({reason}); run again with another --out") from None
    except (OSError, EditVerseError) as error:
        raise BenchmarkError(f"{path}: damaged ({error}); run again with another --out") from None


def fetch(data: str = "data/EditVerseBench", key: str = "PIXABAY_API_KEY", rendition: str = "large") -> None:
    """Download EditVerseBench's source videos, which its authors may not pass on; go on where it ended.

    Args:
        data: folder with the list, test.json; videos come to the places that it names
        key: environment variable that holds your own Pixabay key
        rendition: large, medium, small or tiny
    """
    with console.status("fetching") as status:
        done = fetch_videos(Path(data), key, rendition, status.update)
    print(f"{done.came} videos came, {done.there} were there, {len(done.failed)} failed")
    for name, reason in done.failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    if done.failed:
        raise SystemExit(1)


def ablation(
    variants: str = "configs/train/ablations/study.yaml", out: str = "runs/study", jobs: int = 1
) -> None:
    """Train and score variants of one training over several seeds, and compare them in one table.

    What is in `out` is reused: a second call trains nothing, an interrupted one goes on.

    Args:
        variants: file that names the training, its variants, seeds and scores
        out: folder of all their runs, and of study.md and study.json
        jobs: trainings at a time, each on its share of the processors
    """
    if jobs < 1:
        raise BenchmarkError(f"--jobs {jobs}: needs at least 1")
    read = read_study(Path(variants))
    with exclusive(out, "--out"):
        made = carry_out(read, Path(out), jobs, lambda line: console.print(line, highlight=False))
    print(markdown(read, made))


def gallery(
    shards: tuple[str, ...] = ("data/shards/object_removal",),
    checkpoint: str = "nano",
    out: str = "runs/gallery.jpg",
    count: int = 24,
    seed: int = 0,
    steps: int | None = None,
    ground: tuple[str, ...] = (),
) -> None:
    """Edit randomly sampled held-out items, into one picture and a Markdown page beside it.

    Args:
        shards: folders whose held-out samples are drawn from, as many of each
        checkpoint: folder with config.json and model.safetensors, or the name of shipped weights
        out: the picture, a JPEG
        count: how many
        seed: of the sampling and of the noise
        steps: solver steps; the checkpoint's own when not given
        ground: tasks whose edits first find their region, then edit within it
    """
    folders = [Path(s) for s in shards]
    for line in write_gallery(folders, Path(checkpoint), Path(out), count, seed, steps, ground):
        print(line)


def evaluate_and_report(
    config: Any,
    out: Path,
    curves: str | None,
    gallery: int,
    inside: bool = True,
    workers: int = 1,
    retry: int = 0,
) -> None:
    """Execute a run and leave its table, summary and page; InUseError when another run has the folder.

    What ends the run before its last item is raised once these are written of the items before.
    """
    # what is wrong with the request is said before there is a folder
    found = find_curves(config.checkpoint, curves)
    drawn = [curve for path in found for curve in read_curves(path)]
    bench = Evaluation(config, out)
    with held(out):
        _go(bench, found, drawn, gallery, inside, workers, retry)


def _go(
    bench: Any,
    found: list[Path],
    drawn: list[Any],
    gallery: int,
    inside: bool,
    workers: int,
    retry: int,
) -> None:
    out: Path = bench.out
    begin = time.perf_counter()
    done = execute(bench.config, out, console, gallery, workers, bench, retry)
    if done.stopped and reported(out) >= len(done.outcomes):  # by an earlier run, of as many items or more
        raise done.stopped
    scoring = time.perf_counter() - begin
    made = provenance(out, fresh=any(v for k, v in done.counts.items() if not k.endswith("reused")))
    if found:
        made["training curves"] = ", ".join(str(path) for path in found)
    write_report(out / "report.html", done, drawn, made, inside)
    seconds = {"edit_and_score": round(scoring, 3), "report": round(time.perf_counter() - begin - scoring, 3)}
    write_json(
        out / "summary.json", done.summary() | {"counts": done.counts, "seconds": seconds, "made": made}
    )
    write_json(out / "items.json", done.items_out())
    write_published(done, out)
    print_table(terminal_table(done))
    if (summed := aggregate_table(done)) is not None:
        print_table(summed)
    console.print(
        f"{done.counts['edits_made']} edits made, {done.counts['edits_reused']} reused; "
        f"{done.counts['scores_computed']} scores computed, {done.counts['scores_reused']} reused; "
        f"95 % intervals clustered by {done.clusters[0]}"
    )
    for remark in [*done.all_remarks, *done.unlike_published][:20]:
        console.print(f"[yellow]note[/yellow] {escape(remark)}", highlight=False)
    for item, row, metric, reason in done.failures()[:20]:
        words = f"[yellow]unscored[/yellow] {escape(f'{item} {row} {metric}: {reason}')}"
        console.print(words, highlight=False, soft_wrap=True)
    console.print(f"report: {(out / 'report.html').resolve()}", highlight=False, soft_wrap=True, markup=False)
    if done.stopped:
        raise done.stopped
    if lost := done.failed_by_kind().get("error", 0):
        print(
            f"error: metrics lost {lost} scores by faults of their own; see {out / 'errors.log'}",
            file=sys.stderr,
        )
        raise SystemExit(1)
    if all(outcome.geometry is None for outcome in done.outcomes):
        print(f"error: nothing could be scored; first: {done.failures()[0][3]}", file=sys.stderr)
        raise SystemExit(1)


def reported(out: Path) -> int:
    """Of how many items the report in a folder is; 0 where there is none."""
    try:
        held = read_json(out / "summary.json")
    except (OSError, EditVerseError):
        return 0
    return int(held["items"]) if isinstance(held, dict) and isinstance(held.get("items"), int) else 0


def find_curves(checkpoint: str | None, curves: str | None) -> list[Path]:
    """The training run's CSV files: the one given, or those of a run in or beside the checkpoint."""
    if curves is not None:
        return [Path(curves)]
    if checkpoint is None:
        return []
    for folder in (Path(checkpoint), Path(checkpoint).parent):
        found = [folder / name for name in CURVES if (folder / name).is_file()]
        if found:
            return found
    return []


def provenance(out: Path, fresh: bool) -> dict[str, str]:
    """Code commit, date and machine of the run that computed something last; kept in `made.json`."""
    path = out / "made.json"
    if fresh or not path.is_file():
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        write_json(
            path, {"date": today, "commit": commit(), "machine": f"{platform.machine()} {platform.system()}"}
        )
    try:
        made = read_json(path)
    except EditVerseError as error:
        raise BenchmarkError(f"{error}; delete it, the next run writes it again") from None
    if not isinstance(made, dict) or not all(isinstance(value, str) for value in made.values()):
        raise BenchmarkError(f"{path}: should map texts to texts; delete it, the next run writes it again")
    return made


def commit() -> str:
    """The code's git commit, `-dirty` when the packages were changed since; "unknown" outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def main() -> int:
    """Entry point; returns the exit status."""
    commands: dict[str, Any] = {
        "run": run,
        "report": report,
        "compare": compare,
        "rank": rank,
        "power": power,
        "faults": faults,
        "fetch": fetch,
        "generate": generate,
        "collect": collect,
        "correlate": correlate,
        "calibrate": calibrate,
        "ablation": ablation,
        "submit": submit,
        "study": {
            "_help": "Ask people which edits are better: blind pairs in a browser, and what the votes say.",
            "create": study.create,
            "invite": study.invite,
            "serve": study.serve,
            "admin": study.admin,
            "status": study.status,
            "close": study.close,
            "open": study.open_,
            "delete": study.delete,
            "analyse": study_analysis.analyse,
            "export": study_analysis.export,
        },
        "submission": {
            "_help": "Write or check a submission: scores, hashes and a card of the method.",
            "make": submission.make,
            "check": submission.check,
        },
        "leaderboard": submission.leaderboard,
        "gallery": gallery,
        "tables": tables,
        "published": published,
        "list": list_,
    }
    return run_command(lambda: auto_cli(commands, prog="python -m benchmark", parser_class=Parser))


if __name__ == "__main__":
    sys.exit(main())

"""`editverse speedrun bill|calibrate|compare`: what a run will cost, what one took, both side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from editverse.speedrun.bill.amounts import SizePlan, read_size
from editverse.speedrun.bill.calibration import (
    DEFAULT,
    SHIPPED,
    Calibration,
    fit,
    machine,
    measured,
    read_calibration,
    times_of,
    today,
    write_calibration,
)
from editverse.speedrun.bill.costs import BILL, Bill, BillError, StageCost, read_bill, write_bill
from editverse.speedrun.bill.scaling import timed_runs
from editverse.speedrun.plan import duration
from editverse.speedrun.records import read_record
from shards.errors import ConfigError, SettingError
from shards.resources import config_root
from shards.terminal import print_table

HOURS_A_DAY = 24


def bill(
    size: str = "tiny",
    gpus: int | None = None,
    max_gpu_hours: float | None = None,
    calibration: Path | None = None,
    out: Path | None = None,
    set: dict[str, Any] = {},  # noqa: B006 (never changed)
) -> None:
    """Say what a speedrun will cost by stage, and what that takes for granted; nothing is run.

    Args:
        size: a name in configs/speedrun, or a folder with the same files
        gpus: that the run has; those of the settings when left out
        max_gpu_hours: refuse, with exit status 2, a run that costs more
        calibration: times to go by; runs/speedrun-calibration.json, if it is of this size, when left out
        out: JSON file to write
        set: settings in place of the file's, as JSON or one by one: --set.clips_count 300
    """
    made = make_bill(read_size(size, gpus, set), calibration)
    if max_gpu_hours is not None and made.unknown:
        raise BillError(
            f"bill: nothing is known of what {made.unknown[0]} costs, so --max_gpu_hours cannot be kept; "
            f"`editverse speedrun calibrate --size {size}` times it"
        )
    if out is not None:
        write_bill(out, made)
    print_bill(made)
    made.check(max_gpu_hours)


def calibrate(
    size: str = "tiny",
    runs: tuple[Path, ...] = (),
    scales: tuple[float, ...] = (0.1, 0.3),
    out: Path = DEFAULT,
    workspace: Path = Path("runs/speedrun-calibration"),
) -> None:
    """Time the stages of a size on this machine, for bills that are measured: the size made smaller, twice.

    Args:
        size: a name in configs/speedrun, or a folder with the same files
        runs: finished runs of this size on this machine to take the times of, instead of running anything
        scales: parts of the size that are run, one after the other
        out: JSON file to write, where bills look for it when none is named
        workspace: folder for what is run; what is finished there is not run again
    """
    plan = read_size(size)
    folders = runs or list(timed_runs(plan, scales, workspace))
    times = tuple(time for folder in folders for time in times_of(folder))
    if not times:
        raise ConfigError(f"{folders[0]}: no stage of it is finished")
    found = Calibration(plan.folder.name, plan.base, plan.gpus, machine(), today(), times)
    write_calibration(out, found)
    table = Table("stage", "unit", "start, s", "s a unit", "CPU-s a unit", title=f"{size} on {machine()}")
    for stage, unit in dict.fromkeys((time.stage, time.unit) for time in times):
        of = found.of(stage, unit)
        counts = [time.count for time in of]
        start, rate = fit(counts, [time.seconds for time in of])
        table.add_row(
            *(stage, unit, f"{start:.1f}", f"{rate:.3g}"),
            f"{fit(counts, [time.cpu_seconds for time in of])[1]:.3g}",
        )
    print_table(table)
    print(f"written: {out}")


def compare(run: Path) -> None:
    """Show what each stage of a run was billed and took, and the ratio of both.

    Args:
        run: folder of the run
    """
    try:
        billed = read_bill(run / BILL)
    except FileNotFoundError:
        raise ConfigError(f"{run}: has no {BILL}; it is no run of scripts/speedrun.sh") from None
    rows = [(row, read_record(run, row.stage)) for row in billed.stages]
    table = Table("stage", "basis", "billed", "took", "ratio", "CPU billed", "CPU took", "ratio")
    for column in table.columns[2:]:
        column.justify = "right"
    for row, record in rows:
        took, cpu = (None if record is None else float(record[k]) for k in ("seconds", "cpu_seconds"))
        known = row.stage not in billed.unknown
        table.add_row(
            *(row.stage, row.basis),
            *_pair(3600 * row.hours if known else None, took),
            *_pair(3600 * row.cpu_hours if known else None, cpu),
        )
    done = [(row, record) for row, record in rows if record is not None and row.stage not in billed.unknown]
    if done:
        table.add_section()
        table.add_row(
            *("all", ""),
            *_pair(3600 * sum(r.hours for r, _ in done), sum(float(c["seconds"]) for _, c in done)),
            *_pair(3600 * sum(r.cpu_hours for r, _ in done), sum(float(c["cpu_seconds"]) for _, c in done)),
        )
    print_table(table)


def _pair(billed: float | None, took: float | None) -> tuple[str, str, str]:
    said = ["?" if billed is None else duration(billed), "" if took is None else duration(took)]
    return said[0], said[1], f"{billed / took:.2f}" if billed is not None and took else ""


def make_bill(plan: SizePlan, calibration: Path | None = None) -> Bill:
    """The bill of a plan: measured where a calibration of its size has times, else estimated.

    A stage of which neither is possible has 0 hours, and says so.

    Args:
        calibration: file to go by; when None, that of this machine, else what comes with the size.

    Raises:
        SettingError: the file given is of another size.
    """
    here = machine()
    found = _calibration(plan, calibration)
    rows, missing = {}, []
    for stage, units in plan.units.items():
        row = None
        if found is not None:
            row = measured(stage, units, found, plan.gpus, found.machine == here, plan.base)
        if row is None:
            missing.append(stage)
        else:
            rows[stage] = row
    if missing:
        from editverse.speedrun.bill.estimates import estimator  # brings torch, which timed bills need not

        estimates = estimator(plan)
        for stage in missing:
            rows[stage] = unknown_cost(stage, plan) if estimates is None else estimates.cost(stage)
    if plan.gpus:
        rates = plan.amounts.rates
        here = f"{plan.gpus} GPU{'s' * (plan.gpus > 1)} and {rates.cores * plan.gpus} cores"
    return Bill(plan.size, plan.gpus, here, tuple(rows[stage] for stage in plan.units))


def unknown_cost(stage: str, plan: SizePlan) -> StageCost:
    """The row of a stage that nobody has timed, of a base whose operations are not counted."""
    told = f"not known with base {plan.base}; `editverse speedrun calibrate --size {plan.size}` times it"
    return StageCost(stage, 0.0, 0.0, 0.0, 0.0, "not known", dict(plan.units[stage]), (told,))


def _calibration(plan: SizePlan, given: Path | None) -> Calibration | None:
    """The calibration to go by: the one given, this machine's, or the one that comes with the size."""
    if given is not None:
        found = read_calibration(given)
        if found.size != plan.folder.name:
            raise SettingError(f"--calibration {given}: is of {found.size}, not of {plan.folder.name}")
        return found
    root = config_root().parent
    for path in (DEFAULT, root / DEFAULT):
        if path.is_file():
            found = read_calibration(path)
            if found.size == plan.folder.name:
                return found
    # a copy of a size's folder has another name, and the times of that size
    shipped = plan.folder / SHIPPED
    return read_calibration(shipped) if shipped.is_file() else None


def print_bill(made: Bill) -> None:
    """Print a bill as a table, and its assumptions as numbered lines."""
    unit, units = "hours", 1.0
    if made.hours >= 2 * HOURS_A_DAY:
        unit, units = "days", 1 / HOURS_A_DAY
    elif made.hours < 2:
        unit, units = "minutes", 60.0
    title = f"{Path(made.size).name}: the bill on {made.machine}"
    table = Table("stage", "GPU-hours", "CPU-hours", "GiB", unit, "basis", title=title)
    for column in table.columns[1:5]:
        column.justify = "right"

    def numbers(gpu: float, cpu: float, gib: float, hours: float) -> tuple[str, ...]:
        return tuple(_number(n) for n in (gpu, cpu, gib, hours * units))

    for row in made.stages:
        if row.stage in made.unknown:
            table.add_row(row.stage, *["?"] * 4, row.basis)
            continue
        table.add_row(row.stage, *numbers(row.gpu_hours, row.cpu_hours, row.disk_gib, row.hours), row.basis)
    table.add_section()
    cpu, gib = (sum(getattr(row, name) for row in made.stages) for name in ("cpu_hours", "disk_gib"))
    table.add_row("all", *numbers(made.gpu_hours, cpu, gib, made.hours))
    print_table(table)
    console, number = Console(), 0
    for row in made.stages:
        for line in row.assumptions:
            number += 1
            console.print(f"{number:>3}. {row.stage}: {line}", highlight=False, soft_wrap=True, markup=False)


def _number(value: float) -> str:
    """A number in three digits, or thousands in full."""
    if value >= 100:
        return f"{value:,.0f}"
    return "0" if not value else f"{value:.2g}" if value < 1 else f"{value:.1f}"

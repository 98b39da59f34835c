"""`python -m benchmark submit`: score an editor as a SLURM job, which `configs/slurm/bench.sbatch` says."""

from __future__ import annotations

import shlex
from pathlib import Path

from benchmark.core.item import BenchmarkError
from shards import slurm as slurm_jobs
from shards.slurm import JobRequest

PACKAGES = ("benchmark", "model", "curation", "shards")
SCRIPT = "bench.sbatch"


def submit(
    arguments: str = "--suite heldout",
    out: str = "runs/bench",
    slurm: JobRequest = JobRequest(),  # noqa: B008 (frozen)
) -> None:
    """Submit a scoring run to SLURM; it goes on by itself when its time is up.

    Args:
        arguments: of run, as they would be typed: "--suite heldout --checkpoint runs/mine"
        out: output folder; code and logs lie beside it
        slurm: what the job asks for; one node
    """
    if slurm.nodes != 1:
        raise BenchmarkError(f"--slurm.nodes {slurm.nodes}: a scoring run has one node")
    try:
        told = shlex.split(arguments)
    except ValueError as error:
        raise BenchmarkError(f"--arguments {arguments!r}: {error}") from None
    slurm_jobs.need_sbatch()
    folder = slurm_jobs.snapshot(Path(out), PACKAGES, SCRIPT)
    slurm_jobs.write_arguments(folder, [*told, "--out", str(Path(out).resolve())])
    job = slurm_jobs.submit(folder, SCRIPT, slurm.arguments())
    print(f"job {job}: code and logs are in {folder}")

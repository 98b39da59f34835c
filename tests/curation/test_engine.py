"""Every engine gives the same bytes, whoever works and whoever dies."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.outcome import Outcome
from curation.core.stage import Resources
from curation.engine.engine import Engine, EngineOptions, Plan, choose
from curation.engine.local import end_pool, finished, forkserver, run_pool, submitted
from curation.engine.progress import RunProgress
from curation.engine.ray_driver import StagePool, fitted, share_that_fits
from curation.engine.run import run
from curation.engine.store import NEAR, SAME_BYTES, OutcomeStore
from curation.engine.streaming import Unfinished
from curation.engine.summary import Summary
from curation.engine.task_config import RunError, StageLimits
from curation.engine.worker import Job
from curation.sources.clip_filter import ClipStats, Measures
from curation.sources.clips import Clip
from shards.media import write_video
from shards.processes import own_name
from tests.curation.conftest import command, environment

ROOT = Path(__file__).parents[2]
LOCAL = [
    EngineOptions(1, engine="local"),
    EngineOptions(2),
    EngineOptions(2, engine="passes"),
]
RAY = [pytest.param(EngineOptions(2, engine="ray"), marks=pytest.mark.slow)]
CONFIG: dict[str, Any] = {
    "class_path": "curation.tasks.sketch_to_video.SketchToVideo",
    "init_args": {
        "edges": {"class_path": "curation.annotators.canny.CannyEdges"},
        "cut": {"box": [90, 120], "heldout_fraction": 0.0},
        "length": 17,
        "most": 2,
    },
}


def name(options: Any) -> str:
    return f"{options.engine}-{options.workers}" if isinstance(options, EngineOptions) else str(options)


@pytest.fixture(scope="module")
def clips(street: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short clips, the first again under another name and again in other bytes, and one broken file."""
    folder = tmp_path_factory.mktemp("clips")
    small = np.stack([cv2.resize(f, (120, 90), interpolation=cv2.INTER_AREA) for f in street])
    for number, view in enumerate((small, small[:, :, ::-1], small[:, ::-1], small[:, ::-1, ::-1])):
        write_video(folder / f"{number}.mp4", np.ascontiguousarray(view[: 40 + 3 * number]), 10.0)
    (folder / "4.mp4").write_bytes((folder / "0.mp4").read_bytes())
    write_video(folder / "5.mp4", np.clip(small[:40] * 0.95 + 6, 0, 255).astype(np.uint8), 10.0, crf=30)
    (folder / "6.mp4").write_text("no video")
    return folder


def configured(folder: Path, **arguments: Any) -> Path:
    """A file of the task with other arguments."""
    config = {**CONFIG, "init_args": {**CONFIG["init_args"], **arguments}}
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def carried_out(options: EngineOptions, clips: Path, folder: Path, config: Path) -> Summary:
    with Engine(options) as engine:
        where = (clips, folder / "out", folder / "workspace", config)
        return run("sketch_to_video", *where, engine=engine)


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.tar"))}


@pytest.fixture(scope="module")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Summary]:
    """The shards of a run in one process, and its numbers."""
    folder = tmp_path_factory.mktemp("expected")
    summary = carried_out(EngineOptions(0), clips, folder, configured(folder))
    return digests(folder / "out"), summary


@pytest.mark.parametrize("options", LOCAL, ids=name)  # Ray's bytes are compared on two nodes, below
def test_every_engine_gives_the_same(
    expected: tuple[dict[str, str], Summary], clips: Path, tmp_path: Path, options: EngineOptions
) -> None:
    summary = carried_out(options, clips, tmp_path, configured(tmp_path))
    shards, other = expected
    assert digests(tmp_path / "out") == shards
    assert shards
    for field in ("clips", "source_frames", "candidates", "accepted", "refused_clips", "rejected", "samples"):
        assert getattr(summary, field) == getattr(other, field)
    assert summary.refused_clips == {NEAR: 1, SAME_BYTES: 1}
    assert summary.clips == 4
    assert len(summary.quarantined) == 1
    assert not list((tmp_path / "workspace" / "runs").iterdir())
    assert not list((tmp_path / "workspace" / "attempts").iterdir())


@pytest.mark.parametrize("options", [*LOCAL, *RAY], ids=name)
def test_a_clip_that_kills_its_process_is_left_out_and_harms_nobody(
    clips: Path, tmp_path: Path, options: EngineOptions
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for path in sorted(clips.glob("[0-3].mp4")):
        (folder / path.name).write_bytes(path.read_bytes())
    bright = np.random.default_rng(0).integers(150, 256, (20, 90, 120, 3), dtype=np.uint8)
    write_video(folder / "1_deadly.mp4", bright, 10.0)
    deadly = {"class_path": "tests.curation.deadly.DeadlyEdges"}
    cut = {"box": [90, 120], "heldout_fraction": 0.0, "screen": {"alike": -1}}
    summary = carried_out(options, folder, tmp_path, configured(tmp_path, edges=deadly, cut=cut))
    assert summary.accepted == 8
    (line,) = summary.quarantined
    assert "1_deadly.mp4, frames 0 to 20: its process died 3 times; the clip is left out" in line


@pytest.mark.parametrize("options", LOCAL, ids=name)
def test_processes_that_cannot_start_end_the_run_in_one_line(
    clips: Path, tmp_path: Path, options: EngineOptions
) -> None:
    edges = {"class_path": "tests.curation.deadly.Stillborn", "init_args": {"spared": os.getpid()}}
    with pytest.raises(RunError, match=r"process.* died \d+ times before any result"):
        carried_out(options, clips, tmp_path, configured(tmp_path, edges=edges))


def test_pages_that_show_the_same_are_not_made_again(clips: Path, tmp_path: Path) -> None:
    config = configured(tmp_path)
    carried_out(EngineOptions(0), clips, tmp_path, config)
    page, sheet = tmp_path / "out" / "gallery.html", tmp_path / "out" / "contact.jpg"
    before, shown = page.stat().st_mtime_ns, sheet.read_bytes()
    summary = carried_out(EngineOptions(0), clips, tmp_path, config)
    assert not any(stage.computed for stage in summary.stages.values())
    assert page.stat().st_mtime_ns == before
    sheet.unlink()
    carried_out(EngineOptions(0), clips, tmp_path, config)
    assert sheet.read_bytes() == shown
    (clips / "7.mp4").write_text("no video either")  # the page names what is quarantined
    try:
        carried_out(EngineOptions(0), clips, tmp_path, config)
    finally:
        (clips / "7.mp4").unlink()
    assert "7.mp4" in page.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", ["raylet", "driver"])
def test_a_killed_ray_ends_the_run_in_one_line_and_it_goes_on_as_after_a_killed_driver(
    expected: tuple[dict[str, str], Summary], clips: Path, tmp_path: Path, victim: str
) -> None:
    where = ["--clips", clips, "--out", tmp_path / "out", "--workspace", tmp_path / "workspace"]
    arguments = ["run", "sketch_to_video", "--config", configured(tmp_path), *where]
    driver = subprocess.Popen(
        command(*arguments, "--engine", "ray"), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    for _ in range(6000):
        assert driver.poll() is None, driver.communicate()
        children = psutil.Process(driver.pid).children(recursive=True)
        if any("_MapWorker" in p.name() or "ray::Map" in " ".join(cmdline(p)) for p in children):
            (driver if victim == "driver" else next(p for p in children if "raylet" in p.name())).kill()
            break
        time.sleep(0.05)
    if victim == "driver":
        driver.wait(300)
        for process in psutil.wait_procs(children, 30)[1]:  # Ray's agents outlive a driver for a minute
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    else:
        _, told = driver.communicate(timeout=300)
        assert driver.returncode == 2, told
        assert "Traceback" not in told
        assert [line for line in told.splitlines() if line.startswith("error: Ray: ")], told
    with Engine(EngineOptions(0)) as engine:
        paths = (clips, tmp_path / "out", tmp_path / "workspace", tmp_path / "task.yaml")
        run("sketch_to_video", *paths, engine=engine)
    assert digests(tmp_path / "out") == expected[0]


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_two_nodes_each_stage_has_actors_of_its_own(
    expected: tuple[dict[str, str], Summary], clips: Path, tmp_path: Path
) -> None:
    """Two raylets of one core: no stage waits for another's, and Ray itself says whose actors there are."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        where = ["--clips", clips, "--out", tmp_path / "out", "--workspace", tmp_path / "workspace"]
        arguments = ["run", "sketch_to_video", "--config", configured(tmp_path), *where]
        driver = subprocess.Popen(
            command(*arguments, "--address", cluster.address),
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        seen: set[str] = set()
        while driver.poll() is None:
            seen |= {actor["ActorClassName"] for actor in ray._private.state.actors().values()}
            time.sleep(0.2)
        assert driver.returncode == 0, driver.communicate()
    finally:
        ray.shutdown()
        cluster.shutdown()
    pools = {"FlatMap(cut)", "Map(screen)", "Map(sketch)", "Map(caption)"}
    assert {name[10:-1] for name in seen if name.startswith("MapWorker(")} == pools
    assert digests(tmp_path / "out") == expected[0]


@pytest.mark.slow
def test_an_address_where_nobody_answers_is_one_line(
    cli: Callable[..., subprocess.CompletedProcess[str]], clips: Path, tmp_path: Path
) -> None:
    where = ("--clips", clips, "--out", tmp_path / "out", "--workspace", tmp_path / "workspace")
    done = cli("run", "sketch_to_video", *where, "--address", "127.0.0.1:1")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "127.0.0.1:1" in line
    assert "Traceback" not in done.stderr


# ---- what is decided without starting anything


def test_the_engine_is_chosen_by_what_there_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plain, few, many = Plan({"sketch": Resources()}), ["a.mp4"] * 3, ["a.mp4"] * 2000
    assert choose(EngineOptions(0), plain, many)[0] == "here"
    assert choose(EngineOptions(2), plain, few)[0] == "pool"
    assert choose(EngineOptions(2), plain, many)[0] == "ray"
    assert choose(EngineOptions(2, engine="local"), plain, many)[0] == "pool"
    assert choose(EngineOptions(2, engine="passes"), plain, many)[0] == "passes"
    assert choose(EngineOptions(2, engine="ray"), plain, few)[0] == "ray"
    assert choose(EngineOptions(2, gpus=0.5), plain, few)[0] == "ray"
    assert choose(EngineOptions(2, address="auto"), plain, few) == ("ray", "the cluster at auto")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose(EngineOptions(2), plain, few) == ("ray", "the cluster at 10.0.0.1:6379")
    assert choose(EngineOptions(0), plain, few)[0] == "here"
    assert choose(EngineOptions(2, engine="local"), plain, few)[0] == "pool"


def test_stages_that_want_gpus_get_them_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    stages = {"ground": Resources(gpus=0.5), "edit": Resources(gpus=1.0), "judge": Resources(gpus=0.5)}
    plan, few = Plan(stages, {"edit": StageLimits(min=2)}), ["a.mp4"] * 3
    assert choose(EngineOptions(8), plan, few, gpus=3) == ("ray", "stages want a GPU")
    engine, why = choose(EngineOptions(8), plan, few, gpus=2)
    assert engine == "passes"
    assert "all stages at once want 3 GPUs, this machine has 2" in why
    assert choose(EngineOptions(8), plan, few, gpus=0)[0] == "pool"
    assert choose(EngineOptions(8, engine="local"), plan, few, gpus=2)[1].startswith("2 processes")
    assert choose(EngineOptions(8, engine="local"), plan, few, gpus=0)[1].startswith("8 processes")
    # no more processes than find a share of a GPU beside the others' smallest pools
    pools = [StagePool(name, needs, plan.limits.get(name, StageLimits())) for name, needs in stages.items()]
    fit, _ = fitted(pools, [{"CPU": 64.0, "GPU": 5.0}], 8, False, 0.0)
    assert [p.limit.max for p in fit] == [5, 4, 5]


def test_processes_of_a_pool_have_a_gpu_each(clips: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    edges = {"class_path": "tests.curation.deadly.NotingEdges", "init_args": {"folder": str(notes)}}
    config = yaml.safe_load(configured(tmp_path, edges=edges).read_text())
    job = Job(config, str(tmp_path / "workspace"), str(ROOT), "test")
    sources = [str(path) for path in sorted(clips.glob("[0-3].mp4"))]
    with OutcomeStore(tmp_path, 0) as store, RunProgress(len(sources)) as progress:
        done = list(run_pool(job, sources, store, progress, 2, 30.0, ["3", "5"]))
    assert not any(outcome.fault or outcome.error for outcome in done)
    assert sorted(path.read_text() for path in notes.iterdir()) == ["3", "5"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_ray_a_stage_sees_its_share_of_the_gpus_and_no_other(clips: Path, tmp_path: Path) -> None:
    """Two GPUs that Ray is told of: it numbers them without looking."""
    from ray.cluster_utils import Cluster

    notes = tmp_path / "notes"
    notes.mkdir()
    noting = {"init_args": {"folder": str(notes)}}
    config = configured(
        tmp_path,
        edges={"class_path": "tests.curation.deadly.NotingEdges", **noting},
        captioner={"class_path": "tests.curation.deadly.NotingCaptioner", **noting},
    )
    resources = {"resources": {"sketch": {"gpus": 1, "min": 2, "max": 2}}}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **resources}))
    head = {"num_cpus": 2, "num_gpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        carried_out(EngineOptions(2, address=cluster.address), clips, tmp_path, config)
    finally:
        cluster.shutdown()
    seen = {(path.name.split("-")[0], path.read_text()) for path in notes.iterdir()}
    assert seen == {("edges", "0"), ("edges", "1"), ("caption", "")}


@pytest.mark.parametrize(
    ("options", "program"),
    [(EngineOptions(0), False), (EngineOptions(0), True), (EngineOptions(1, engine="passes"), False)],
    ids=["here", "program", "passes"],
)
def test_a_full_gpu_ends_the_run_with_advice_and_costs_no_result(
    clips: Path, tmp_path: Path, options: EngineOptions, program: bool
) -> None:
    folder, full = tmp_path / "clips", tmp_path / "full"
    folder.mkdir()
    full.touch()
    (folder / "0.mp4").write_bytes((clips / "0.mp4").read_bytes())
    bright = np.random.default_rng(0).integers(150, 256, (20, 90, 120, 3), dtype=np.uint8)
    write_video(folder / "1.mp4", bright, 10.0)
    hungry = {
        "class_path": "tests.curation.deadly.HungryEdges",
        "init_args": {"full": str(full), "program": program},
    }
    cut = {"box": [90, 120], "heldout_fraction": 0.0, "screen": {"alike": -1}}
    config = configured(tmp_path, edges=hungry, cut=cut)
    said = r"stage sketch: the GPU's memory is used up .*CUDA out of memory.*needs 32\.3 GiB for weights"
    with pytest.raises(RunError, match=said) as told:
        carried_out(options, folder, tmp_path, config)
    assert "--engine passes" in str(told.value)
    assert "resources: {sketch: {gpus: 1}}" in str(told.value)
    assert not (tmp_path / "out" / "quarantine.jsonl").exists()
    full.unlink()
    summary = carried_out(options, folder, tmp_path, config)
    assert (summary.stages["sketch"].reused, summary.stages["sketch"].computed) == (2, 1)
    assert not summary.quarantined


def test_all_pools_fit_at_once_or_the_run_is_refused() -> None:
    pools = [
        StagePool(stage, Resources(cpus=1.0, gpus=gpus), StageLimits())
        for stage, gpus in (("cut", 0.0), ("ground", 0.5), ("judge", 0.5))
    ]
    fit, note = fitted(pools, [{"CPU": 2.0, "GPU": 1.0}], 2, False, 0.0)
    assert not note
    assert sum(p.needs.cpus * (p.limit.max or 0) for p in fit) <= 2.0
    assert [p.limit.max for p in fit] == [2, 1, 1]  # a second process of either would wait for a GPU for ever
    assert [p.needs.gpus for p in fit] == [0.0, 0.5, 0.5]
    fit, _ = fitted(pools, [{"CPU": 64.0, "GPU": 1.0}], 2, True, 0.0)
    assert [(p.needs.cpus, p.limit.max) for p in fit] == [(1.0, None)] * 3
    fit, _ = fitted(pools, [{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}], 2, True, 0.0)
    assert 0.45 < fit[0].needs.cpus <= 0.475  # all three on two of the nodes, should the third be lost
    fit, note = fitted(pools, [{"CPU": 2.0}], 2, True, 0.0)
    assert "no GPU here" in note
    assert not any(p.needs.gpus for p in fit)
    with pytest.raises(RunError, match="--gpus 1: no worker would ever start, this machine has 0 GPUs"):
        fitted(pools, [{"CPU": 2.0}], 2, False, 1.0)
    twice = [*pools, StagePool("edit", Resources(gpus=0.5), StageLimits(min=2))]
    with pytest.raises(RunError, match="want 2 GPUs at once, there are 1; use --engine passes"):
        fitted(twice, [{"CPU": 2.0, "GPU": 1.0}], 2, False, 0.0)


@given(
    wanted=st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), min_size=1, max_size=12),
    nodes=st.lists(st.integers(1, 64).map(float), min_size=1, max_size=6),
)
def test_every_process_finds_a_node_of_its_own_share(wanted: list[float], nodes: list[float]) -> None:
    """A stage whose first process lies on no node would wait for ever, however much is free in all."""
    share = share_that_fits(wanted, nodes)
    assert 0 < share <= 1
    free = sorted(nodes)
    for cores in sorted(wanted, reverse=True):
        place = next(i for i in reversed(range(len(free))) if free[i] >= cores * share)
        free[place] -= cores * share
        free.sort()
    # nothing is given away without need: were all of the size of the largest, a slightly larger share fails
    if share < 1:
        largest = max(wanted) * share / 0.98
        assert sum(int(0.95 * cores / largest - 1e-9) for cores in nodes) < len(wanted)


def test_resources_of_a_file_change_no_result_and_are_checked(clips: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(configured(tmp_path).read_text())
    carried_out(EngineOptions(0), clips, tmp_path, tmp_path / "task.yaml")
    before = json.loads((tmp_path / "out" / "run.json").read_text())

    def again(resources: Any) -> None:
        (tmp_path / "task.yaml").write_text(yaml.safe_dump({**config, "resources": resources}))
        carried_out(EngineOptions(0), clips, tmp_path, tmp_path / "task.yaml")

    again({"sketch": {"gpus": 0.5, "max": 4}})
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == before
    with pytest.raises(RunError, match=r"resources.skecth: no such stage; there are: cut, screen, sketch"):
        again({"skecth": {"gpus": 1}})
    with pytest.raises(RunError, match=r"resources.sketch.gpu"):
        again({"sketch": {"gpu": 1}})
    with pytest.raises(RunError, match=r"resources.sketch: min 3 is more than max 2"):
        again({"sketch": {"min": 3, "max": 2}})


def clip_of(number: int, key: int, mark: int, refused: str) -> Outcome:
    """A clip with a hash that says what it shows."""
    clip = Clip(f"{number}.mp4", f"{key:064x}", "", 0, 20, 10.0, 90, 120, "train")
    stats = ClipStats(Measures(1.0, 100.0, 0.0, 0.0, [f"{mark:016x}"] * 3), 2.0, 90)
    return Outcome(clip.source, clip, (number, 0), 1, refused=refused, clip_stats=stats)


CLIPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 3, 0xFF00]), st.sampled_from(["", "", "not sharp"])),
    min_size=1,
    max_size=7,
)


@settings(deadline=None, max_examples=60)
@given(CLIPS, st.randoms(use_true_random=False), st.booleans())
def test_which_clip_is_a_duplicate_does_not_depend_on_who_is_first(
    tmp_path_factory: pytest.TempPathFactory, clips: list[tuple[int, int, str]], random: Any, early: bool
) -> None:
    bits = 2
    outcomes = [clip_of(number, *values) for number, values in enumerate(clips)]
    wanted = []
    for number, (key, mark, refused) in enumerate(clips):
        before = clips[:number]
        near = not refused and any(not r and (mark ^ m).bit_count() <= bits for _, m, r in before)
        same = any(key == k for k, _, _ in before)
        wanted.append(SAME_BYTES if same else NEAR if near else refused)
    random.shuffle(outcomes)
    with OutcomeStore(tmp_path_factory.mktemp("store"), bits) as store:
        for outcome in outcomes:
            store.add(store.screened(outcome) if early else outcome)
        assert [outcome.refused for outcome in store.finished()] == wanted


def test_a_store_of_a_dead_process_goes_and_one_of_a_living_stays(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = own_name().rsplit(".", 2)[0]
    dead, living, other = (f"{host}.{ended.pid}.ab", f"{host}.{os.getpid()}.ab", f"{host}2.{ended.pid}.ab")
    for folder in (dead, living, other):
        (tmp_path / "runs" / folder).mkdir(parents=True)
    with OutcomeStore(tmp_path, 4):
        pass
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted([living, other])


def test_what_is_asked_for_again_is_what_did_not_come() -> None:
    unfinished = Unfinished(["a", "b", "c"])
    first = Outcome("a", number=(0, 0), siblings=2)
    assert unfinished.takes(first)
    assert not unfinished.takes(first)  # of a second driver, which was asked for the other clip
    assert unfinished.takes(Outcome("c", number=(2, 0)))  # could not be cut
    assert unfinished.sources == {0: "a", 1: "b"}
    assert unfinished.takes(Outcome("a", number=(0, 1), siblings=2))
    assert not unfinished.takes(first)
    assert unfinished.sources == {1: "b"}


def test_a_list_in_a_file_is_a_list(tmp_path: Path) -> None:
    with OutcomeStore(tmp_path, 4) as store:
        numbers = store.listing("numbers", int)
        for number in range(10):
            numbers.append(str(number * number))
        assert list(numbers) == [number * number for number in range(10)]
        for reason, value in itertools.product(("b", "a"), "xyxx"):
            store.reject(reason, value)
        assert list(store.rejected(1)) == [("a", 4, [("x", 3)]), ("b", 4, [("x", 3)])]
    assert not list((tmp_path / "runs").iterdir())


def test_a_pool_that_has_died_takes_work_and_says_that_it_is_lost() -> None:
    """Work handed over after the death and before anybody has seen it is lost like what was under way."""
    pool = ProcessPoolExecutor(1, mp_context=forkserver())
    flying = {submitted(pool, os._exit, 1): "first"}
    assert list(finished(flying)) == [("first", None)]
    flying = {submitted(pool, int, "7"): "second"}
    assert list(finished(flying)) == [("second", None)]
    assert not flying
    end_pool(pool)

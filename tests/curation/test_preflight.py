"""What a run needs before it starts: memory by parameter counts, parts that load, faults told at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.__main__ import run
from curation.annotators.vace import WanVace
from curation.core.cache import Work, Workspace
from curation.core.stage import Resources, Stage
from curation.core.task import Task
from curation.engine.dry_run import dry_run, note_costs
from curation.engine.engine import EngineOptions, Plan
from curation.engine.memory import task_memory, verdict, visible_gpus
from curation.engine.task_config import StageLimits, build, default_config, load_config, read_limits
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights, checkpoint_weights, gib_on_gpu
from shards.errors import SettingError
from shards.media import write_video
from shards.resources import config_root

# billions of parameters, as the papers, model cards and an earlier count of the real repositories have them
KNOWN = {
    "Qwen/Qwen-Image-Edit": {"transformer": 20.43, "text_encoder": 8.29, "vae": 0.13},
    "Wan-AI/Wan2.1-VACE-14B-diffusers": {"transformer": 17.34, "text_encoder": 5.68, "vae": 0.13},
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": {"transformer": 2.15, "text_encoder": 5.68, "vae": 0.13},
    "black-forest-labs/FLUX.1-Kontext-dev": {
        "transformer": 11.9,
        "text_encoder": 0.12,
        "text_encoder_2": 4.76,
        "vae": 0.08,
    },
    "Qwen/Qwen2-VL-7B-Instruct": {"model": 8.29},
    "Qwen/Qwen2-VL-2B-Instruct": {"model": 2.21},
    "Qwen/Qwen2.5-VL-7B-Instruct": {"model": 8.29},
    "Qwen/Qwen2.5-VL-3B-Instruct": {"model": 3.75},
    "Qwen/Qwen3-VL-4B-Instruct": {"model": 4.44},
    "Qwen/Qwen3-VL-8B-Instruct": {"model": 8.77},
    "IDEA-Research/grounding-dino-base": {"model": 0.23},
    "facebook/sam2.1-hiera-large": {"model": 0.22},
    "facebook/sam3": {"model": 0.86},
    "depth-anything/Depth-Anything-V2-Small-hf": {"model": 0.02},
    "depth-anything/Depth-Anything-V2-Large-hf": {"model": 0.34},
}


# ---- weights ----------------------------------------------------------------------------------------------


def test_parameters_of_published_checkpoints_are_the_known_ones() -> None:
    for name, parts in KNOWN.items():
        counted = {one.part: one.parameters for one in checkpoint_weights(f"{name}@main")}
        assert {part: round((count or 0) / 1e9, 2) for part, count in counted.items()} == pytest.approx(
            parts, abs=0.011
        ), name


def test_offloaded_parts_take_turns_and_precision_counts() -> None:
    gib = gib_on_gpu(WanVace().weights())[0]
    assert gib == pytest.approx((17.3376 + 5.6809) * 2e9 / 2**30 + 0.1269 * 4e9 / 2**30, rel=1e-3)
    assert gib_on_gpu(WanVace(dtype="float32").weights())[0] == pytest.approx(2 * gib, rel=0.02)
    assert gib_on_gpu(WanVace(offload=True).weights())[0] == pytest.approx(17.3376e9 * 2 / 2**30, rel=1e-3)
    unknown = Weights("somebody/else")
    assert gib_on_gpu([unknown, *WanVace().weights(), *WanVace().weights()]) == (gib, [unknown])
    assert checkpoint_weights("somebody/else")[0].gib is None


@pytest.mark.parametrize(
    ("config", "said"), [('{"architectures": ["NoSuchModel"]}', "NoSuchModel"), ("{", "Expecting")]
)
def test_a_configuration_that_no_library_knows_is_not_known(tmp_path: Path, config: str, said: str) -> None:
    (tmp_path / "config.json").write_text(config)
    (unknown,) = checkpoint_weights(str(tmp_path))
    assert unknown.gib is None
    assert said in unknown.source


def test_a_precision_that_weights_do_not_come_in_is_refused() -> None:
    assert WanVace(dtype="half").weights()[0].gib == WanVace(dtype="bfloat16").weights()[0].gib
    with pytest.raises(SettingError, match="dtype: 'complex64' is none"):
        WanVace(dtype="complex64").weights()


# ---- cards ------------------------------------------------------------------------------------------------


def plan_of(path: Path) -> tuple[Task, Plan]:
    """The task of a file, and what its stages take."""
    task = build(load_config(path.name.partition(".")[0], path))
    limits = read_limits(path, ["cut", "screen", *(stage.name for stage in task.graph)])
    return task, Plan.of(task.graph, limits, 0.0)


def test_every_file_of_the_reference_preset_says_which_card_it_needs() -> None:
    wrong = []
    for path in sorted((config_root() / "curation").glob("*.reference.yaml")):
        task, plan = plan_of(path)
        line = f"# {task_memory(task.graph, plan.stages, plan.limits).sentence}"
        if line not in path.read_text().partition("class_path")[0].splitlines():
            wrong.append(f"{path.name} lacks the line: {line}")
    assert not wrong, "\n".join(wrong)


def test_each_engine_holds_what_its_processes_hold() -> None:
    """Numbers by hand: two language models of 15 GiB share a GPU on Ray, and are one in one process."""
    vlm = Weights("vlm", parameters=15 * 2**29, dtype="bfloat16")
    video = Weights("video", parameters=32 * 2**29, dtype="bfloat16")
    program = Weights("program", peak_gib=20.0)

    class Holds:
        def __init__(self, *held: Weights) -> None:
            self.held = held

        def describe(self) -> Backend:
            return Backend("holds")

        def weights(self) -> list[Weights]:
            return list(self.held)

    def stage(name: str, gpus: float, *held: Weights) -> Stage:
        return Stage(
            name=name,
            run=lambda clip, folder: None,
            annotators=[Holds(*held)],
            resources=Resources(gpus=gpus),
        )

    stages = [
        stage("write", 0.5, vlm),
        stage("edit", 1.0, video),
        stage("remove", 0.5, program),
        stage("judge", 0.5, vlm),
    ]
    plan = Plan.of(stages, {}, 0.0)
    memory = task_memory(stages, plan.stages, {})
    assert [m.total for m in memory.stages.values()] == [18.75, 40.0, 20.0, 18.75]
    assert (memory.passes.total, memory.passes.card) == (40.0, 80)
    assert memory.local.total == 15 + 32 + 20 + 8
    assert (memory.ray.total, memory.gpus) == (40.0, 2.5)
    assert verdict(memory, 1, 79.1).endswith(
        "1 GPU of 79.1 GiB, enough for --engine passes, local by these counts"
    )
    assert verdict(memory, 3, 44.0).endswith("enough for --engine passes, ray by these counts")
    assert verdict(memory, 8, 22.0).endswith("too small for every engine by these counts")
    one_each = {name: StageLimits(max=1) for name in ("write", "remove", "judge")}
    whole = [stage("edit", 1.0, vlm), *stages[2:]]
    assert task_memory(whole, Plan.of(whole, {}, 0.0).stages, {}).ray.total == 40.0
    assert task_memory(whole, Plan.of(whole, {}, 0.0).stages, one_each).ray.total == 38.75
    unknown = [*stages, stage("mystery", 0.1, Weights("mystery"))]
    sentence = task_memory(unknown, Plan.of(unknown, {}, 0.0).stages, {}).sentence
    assert sentence == (
        "Needs a GPU of 80 GB with --engine passes, 80 GB with --engine local, 3 of 80 GB with Ray; "
        "not counted: mystery."
    )


@pytest.mark.parametrize("task", ["style_transfer", "object_removal"])
def test_a_dry_run_tells_memory_and_claims_no_hours(
    task: str, square: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", square(20, 64, 96)[0], 10.0)
    config = default_config(task, "reference")
    dry_run(task, str(tmp_path), tmp_path / "workspace", config, EngineOptions(2))
    printed = capsys.readouterr().out
    assert "weights on a GPU" in printed
    assert "Activations are not measured" in printed
    assert not (tmp_path / "workspace").exists()
    assert "0.00 hours" not in printed
    (hours,) = [line for line in printed.splitlines() if line.startswith("hours: ")]
    if task == "style_transfer":
        assert hours.startswith("hours: not known;")
        assert re.search(
            r"first_frame +│ Qwen/Qwen-Image-Edit +│ transformer +│ 20.43 +│ bfloat16 +│ 38.1", printed
        )
        assert re.search(r"--engine local: all stages +│ 112.6 +│ 126.0 +│ 141 GB", printed)
        assert "FLUX.1 Kontext [dev] non-commercial" in printed
    else:
        assert re.match(r"hours: not known \(but [\d.]+ for inpaint\);", hours)
        assert "leave out loading the models" in printed
        assert re.search(r"inpaint +│ 20.0 +│ 20.0 +│ 24 GB", printed)


def test_one_preset_s_speeds_are_not_the_other_s(
    square: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both call a stage "style": one filters pictures, the other generates them."""
    write_video(tmp_path / "a.mp4", square(20, 64, 96)[0], 10.0)
    offline, reference = (default_config("style_transfer", preset) for preset in ("offline", "reference"))
    built = build(load_config("style_transfer", offline))
    note_costs(Workspace(tmp_path / "space"), built, {"style": Work(computed=1, seconds=36.0)}, 1000)
    told = []
    for config in (offline, reference):
        dry_run("style_transfer", str(tmp_path), tmp_path / "space", config, EngineOptions(1))
        told += [line for line in capsys.readouterr().out.splitlines() if line.startswith("hours: ")]
    assert told[0] == f"hours: {0.036 * 20 / 3600:.2g}"
    assert told[1].startswith("hours: not known;")


def test_gpus_are_those_that_cuda_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == []
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path) == ["0", "1"]
    for chosen, seen in (("1", ["1"]), ("", []), ("GPU-5ab, GPU-6cd", ["GPU-5ab", "GPU-6cd"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert visible_gpus(tmp_path) == seen


def test_loading_goes_with_a_dry_run() -> None:
    with pytest.raises(SettingError, match="--load: goes with --dry-run"):
        run("sketch_to_video", load=True)

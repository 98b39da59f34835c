"""Every suite of others on a folder in its published layout: what is right scores, what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from benchmark.core.item import BenchmarkError, Geometry, Loaded, Reference
from benchmark.evaluation.results import Run, RunConfig
from benchmark.evaluation.runner import execute
from benchmark.judges.five_acc import FiveAcc
from benchmark.judges.viescore import grades_in
from benchmark.suites import aggregates, open_suite
from tests.benchmark import layouts
from tests.benchmark.stub import Reply, Stub, said

CRITERION = "benchmark.judges.criteria.Criterion"
METRICS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "openve": [
        (CRITERION, {"form": "openve", "criterion": c}) for c in ("instruction", "consistency", "quality")
    ],
    "ivebench": [(CRITERION, {"form": f}) for f in ("instruction_satisfaction", "content_fidelity")],
    "vefx": [(CRITERION, {"form": "vefx", "criterion": c}) for c in ("if", "rq", "ee")],
    "vie_bench": [
        (CRITERION, {"form": "vie_bench", "criterion": c}) for c in ("instruction", "preservation", "quality")
    ],
    "gedit": [("benchmark.judges.viescore.VieScore", {"of": of}) for of in ("sc", "pq")],
    "five": [("benchmark.judges.five_acc.FiveAcc", {"of": of}) for of in ("yn", "mc")],
}
ANSWERS: dict[str, dict[str, Any]] = {
    "openve": {"instruction": 4, "quality": 5, "consistency": 3},
    "ivebench": {"grade": 3},
    "vefx": {"if": 4, "rq": 2, "ee": 3},
    "vie_bench": {"instruction": 8, "preservation": 9, "quality": 4},
}
AGGREGATES = {
    "openve": {"five kinds": (11 / 3, 2), "all kinds": (11 / 3, 3)},  # quality is lowered to 4
    "ivebench": {
        "short: total (2 of 3 dimensions)": (0.5, 2),
        "short: compliance (1 of 4 metrics)": (0.5, 2),
        "short: fidelity (1 of 3 metrics)": (0.5, 2),
        "long: total (2 of 3 dimensions)": (0.5, 1),
        "long: compliance (1 of 4 metrics)": (0.5, 1),
        "long: fidelity (1 of 3 metrics)": (0.5, 1),
    },
    "vefx": {"GeoAgg": (1 + 3 * (1 * 1 / 3 * 2 / 3) ** 0.25, 2), "mean of IF, RQ, EE": (3, 2)},
    "vie_bench": {"mean over kinds": (7, 2), "reference swap": (7, 1), "swap": (7, 1)},
    "gedit": {
        **{f"en, full: {name}": (value, 2) for name, value in (("SC", 4), ("PQ", 9), ("overall", 6))},
        **{f"en, intersection: {name}": (v, 1) for name, v in (("SC", 4), ("PQ", 9), ("overall", 6))},
        **{f"cn, full: {name}": (value, 1) for name, value in (("SC", 4), ("PQ", 9), ("overall", 6))},
        **{f"cn, intersection: {name}": (v, 1) for name, v in (("SC", 4), ("PQ", 9), ("overall", 6))},
    },
    "five": {
        "YN-Acc": (100, 2),
        "MC-Acc": (50, 2),
        "union": (100, 2),
        "intersection": (50, 2),
        "FiVE-Acc": (75, 2),
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Stub]:
    served = Stub()
    yield served
    served.server.shutdown()


@pytest.fixture
def stub(server: Stub) -> Stub:
    server.requests.clear()
    return server


def text_of(request: dict[str, Any]) -> str:
    """The words of a request."""
    content = request["messages"][-1]["content"]
    return str(content) if isinstance(content, str) else " ".join(p.get("text", "") for p in content)


def reply(suite: str, request: dict[str, Any]) -> Reply:
    """A good answer to what a suite's judge asks."""
    text = text_of(request)
    if suite == "gedit":
        pair = {"success": 6, "restraint": 4}
        return said(json.dumps(pair if "restraint" in text else {"naturalness": 9, "cleanness": 10}))
    if suite == "five":
        if "a) " in text:
            return said('{"answer": "b"}')
        return said('{"answer": "no"}' if "Is there a bus" in text else '{"answer": "yes"}')
    return said(json.dumps(ANSWERS[suite]))


def run(
    layout: layouts.Layout, out: Path, url: str, names: dict[str, Path] | None = None, **more: Any
) -> Run:
    """The layout scored by its suite's judge at `url`."""
    judge = {"class_path": "curation.vlm.endpoint.Endpoint", "init_args": {"url": url, "model": "m"}}
    listed = [
        {"class_path": kind, "init_args": {"model": "judge", **args, **more.get("args", {})}}
        for kind, args in METRICS[layout.suite]
    ]
    out.mkdir(parents=True, exist_ok=True)
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump({"models": {"judge": judge}, "metrics": listed}))
    results = {n: str(p) for n, p in (names or {"ours": layout.results}).items()}
    config = RunConfig(
        layout.suite,
        str(layout.data),
        None,
        results=results,
        metrics=str(file),
        mode=more.get("mode", "corrected"),
    )
    return execute(config, out, Console(quiet=True), gallery=0)


@pytest.mark.parametrize("name", layouts.WRITERS)
def test_a_published_layout_scores(name: str, tmp_path: Path, stub: Stub) -> None:
    layout = layouts.WRITERS[name](tmp_path)
    choices = iter(("a", "b"))

    def answer(n: int, request: dict[str, Any]) -> Reply:
        if name == "five" and "a) " in text_of(request):
            return said(json.dumps({"answer": next(choices)}))
        return reply(name, request)

    stub.reply = answer
    done = run(layout, tmp_path / "out", stub.url)
    assert done.failures() == []
    assert [o.item.id for o in done.outcomes] == layout.items
    assert [o.item.result.removesuffix(".mp4") for o in done.outcomes] == [
        file.removesuffix(".mp4") for file in layout.files
    ]
    summary = done.summary()
    found = {a["label"]: (a["value"], a["n"]) for a in summary["aggregates"]["ours"]}
    assert found == {label: (pytest.approx(v), n) for label, (v, n) in AGGREGATES[name].items()}
    # an answer serves all columns of a form
    asked = {"gedit": 2, "five": 3, "ivebench": 2}.get(name, 1) * len(layout.items)
    assert len(stub.requests) == asked
    assert summary["usage"]["requests"] == asked


@pytest.mark.parametrize("name", ["openve", "vefx", "vie_bench", "gedit"])
def test_a_wrong_column_is_refused_by_name(name: str, tmp_path: Path) -> None:
    layout = layouts.WRITERS[name](tmp_path)
    layout.rename()
    with pytest.raises(BenchmarkError, match=rf"no column '{layout.column}'; it has.*words.*columns\.json"):
        open_suite(name, layout.data)
    table = next(p for p in layout.data.rglob("*") if p.suffix in (".csv", ".parquet"))
    (table.parent / "columns.json").write_text(json.dumps({layout.column: "words"}))
    assert [item.id for item in open_suite(name, layout.data).items] == layout.items
    (table.parent / "columns.json").write_text(json.dumps({"speed": "words"}))
    with pytest.raises(BenchmarkError, match="'speed' is no column"):
        open_suite(name, layout.data)


@pytest.mark.parametrize("name", ["ivebench", "five"])
def test_a_wrong_field_is_the_fault_of_its_entries(name: str, tmp_path: Path) -> None:
    layout = layouts.WRITERS[name](tmp_path)
    layout.rename()
    faults = [item.fault for item in open_suite(name, layout.data).items if item.fault]
    assert len(faults) == len(layout.rows)
    assert all(f"{layout.column}: Field required" in fault for fault in faults)


@pytest.mark.parametrize("name", layouts.WRITERS)
def test_missing_and_extra_results_are_named(name: str, tmp_path: Path, stub: Stub) -> None:
    layout = layouts.WRITERS[name](tmp_path)
    gone = layout.results / layout.files[0]
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    (layout.results / layout.extra).parent.mkdir(exist_ok=True)
    (layout.results / layout.extra).write_bytes(b"something")
    stub.reply = lambda n, request: reply(name, request)
    done = run(layout, tmp_path / "out", stub.url)
    assert [(item, metric) for item, _, metric, _ in done.failures()] == [(layout.items[0], "all")]
    assert "no result" in done.failures()[0][3]
    assert sum("belongs to no item" in remark for remark in done.remarks) == 1
    for aggregate in done.summary()["aggregates"]["ours"]:
        assert aggregate["n"] <= len(layout.items) - 1  # what is missing is in no aggregate


def test_what_is_odd_about_a_list_is_said(tmp_path: Path) -> None:
    layout = layouts.openve(tmp_path)
    path = layout.data / "benchmark_videos.csv"
    lines = path.read_text().splitlines()
    (layout.data / "videos" / f"{layout.items[1]}.mp4").unlink()
    path.write_text("\n".join([lines[0], *lines[1:], lines[1], "local_add,,OpenVE-Bench/videos/a.mp4"]))
    suite = open_suite("openve", layout.data)
    faults = {item.id: item.fault for item in suite.items}
    assert "is missing" in str(faults[layout.items[1]])
    assert "is listed before" in str(faults[f"{layout.items[0]} (entry 3)"])
    assert faults["a"] == "benchmark_videos.csv: row 4: prompt is empty"
    assert [r for r in suite.remarks if "OpenVE-Bench has 431" in r]
    path.write_text(lines[0] + "\nlocal_add,Add it.\n")
    with pytest.raises(BenchmarkError, match=r"line 2 has more or fewer cells"):
        open_suite("openve", layout.data)


def test_kinds_count_alike_however_many_items_they_have(tmp_path: Path) -> None:
    layout = layouts.openve(tmp_path)
    layout.write(
        [{**row, "edited_type": "local_add" if n else "global_style"} for n, row in enumerate(layout.rows)]
    )
    suite = open_suite("openve", layout.data)
    grades: list[float | None] = [1, 4, 5]
    names = [f"openve_{name}" for name in ("instruction", "consistency", "quality")]
    scores = {item: dict.fromkeys(names, grade) for item, grade in zip(layout.items, grades, strict=True)}
    assert aggregates(suite, scores)[0] == ("five kinds", (1 + 4.5) / 2, 3)
    scores[layout.items[1]] |= {names[2]: None}  # one grade is missing, and so is the item
    assert aggregates(suite, scores)[0] == ("five kinds", (1 + 5) / 2, 2)


def test_published_answers_are_read_as_published(tmp_path: Path, stub: Stub) -> None:
    layout = layouts.openve(tmp_path)
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({row["edited_type"]: "Kind: {edit_prompt}" for row in layout.rows}))
    told = (
        "Brief reasoning: fine\nInstruction Compliance: 2\nConsistency & Detail Fidelity: 4.9\n"
        "Visual Quality & Stability: 5"
    )
    stub.reply = lambda n, request: said(told)
    done = run(layout, tmp_path / "out", stub.url, mode="official", args={"prompts": str(prompts)})
    scores = done.outcomes[0].numbers("ours")
    # whole parts, and nothing is lowered to the first grade
    assert scores == {"openve_instruction": 2, "openve_consistency": 4, "openve_quality": 5}
    assert "Kind: Make it red" in text_of(stub.requests[0])
    stub.reply = lambda n, request: said(told.replace("Compliance: 2", "Compliance: 6"))
    wrong = run(layout, tmp_path / "wrong", stub.url, mode="official", args={"prompts": str(prompts)})
    reasons = {reason for *_, reason in wrong.failures()}
    assert all("not from 1 to 5" in reason for reason in reasons)
    assert len(wrong.failures()) == 3  # a line for each item, all of its columns alike


@pytest.mark.parametrize(
    ("told", "grades"),
    [
        ('||V^=^V||{"score": [7, 5], "reasoning": "x"}||V^=^V||', [7, 5]),
        ('Sure. {"score": 6,\n"reasoning": "x"}', [6]),
        ("I say [6, 0] here", [6, 0]),
        (" 8 ", [8]),
        ("11", []),
        ('{"score": ["a"]}', []),
        ("none", []),
    ],
)
def test_grades_are_found_as_viescore_finds_them(told: str, grades: list[float]) -> None:
    assert grades_in(told) == grades


def test_five_asks_by_template_and_stride(tmp_path: Path) -> None:
    shown: list[int] = []

    class Model:
        def ask(self, media: Any, text: str) -> str:
            shown.append(len(media[0]))
            return {"Q Is it old?": "No.", "Q Is it new?": "YES", "C which": "B) new"}[text]

    prompts = tmp_path / "p.json"
    prompts.write_text('{"yn": "Q {question}", "mc": "C {question}"}')
    frames = np.zeros((22, 8, 8, 3), np.uint8)
    words = {"choice": "which", "source_question": "Is it old?", "target_question": "Is it new?"}
    reference = Reference(Loaded(frames, None, None, 8.0, {}), Geometry(22, 8, 8, 8.0), words)
    for of in ("yn", "mc"):
        judge = FiveAcc(Model(), of, str(prompts), "official")  # type: ignore[arg-type]
        assert judge(reference, frames) == 1.0
    assert set(shown) == {5}  # 22 // (22 // 4) is 4: frames 2, 6, 10, 14, 18
    missing = FiveAcc(Model(), "mc", str(prompts), "official")(reference, frames[:3])
    assert "cannot sample" in str(missing)


def test_identity_edits_are_worse_the_more_they_change(pairs_dir: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    layouts.video(clips / "a.mp4", layouts.drawn(1))
    for tint, row in ((2, "near"), (60, "far")):
        for n in range(3):
            layouts.video(tmp_path / row / "a" / f"{n}.mp4", layouts.drawn(1, tint))
    results = {row: str(tmp_path / row) for row in ("near", "far")}
    config = RunConfig("identity", str(clips), None, results=results)
    done = execute(config, tmp_path / "out", Console(quiet=True), gallery=0)
    assert done.failures() == []
    means = {row: {m.name: done.mean(row, m, [0, 1, 2]).value for m in done.metrics} for row in done.rows}
    assert means["source"]["psnr_outside"] == float("inf")
    assert means["source"]["psnr_preserved"] == float("inf")
    assert means["source"]["background_change"] == means["source"]["colour_drift"] == 0
    near, far = means["near"], means["far"]
    assert near["psnr_outside"] > far["psnr_outside"] + 10  # type: ignore[operator]
    assert near["ssim_outside"] > far["ssim_outside"]  # type: ignore[operator]
    assert near["background_change"] < far["background_change"]  # type: ignore[operator]
    assert near["colour_drift"] < 2 < 10 < far["colour_drift"]  # type: ignore[operator]
    assert near["psnr_preserved"] > far["psnr_preserved"] + 10  # type: ignore[operator]
    pairs = open_suite("identity", pairs_dir)
    assert len({item.clip for item in pairs.items}) * 3 == len(pairs.items)
    loaded = pairs.items[0].load()
    assert np.array_equal(loaded.source, loaded.target if loaded.target is not None else [])
    assert set(loaded.inputs) == {"video1"}
    with pytest.raises(BenchmarkError, match="nor videos"):
        open_suite("identity", tmp_path / "out")

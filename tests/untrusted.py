"""What `test_untrusted.py` runs in the limited subprocess: malformed files, made by seed, into our readers.

A case is "kind number folder": the folder holds whole files, and the number seeds what is done to a copy of
them. Number -1 leaves them as they are: that case must be accepted.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openai  # noqa: F401 (takes seconds to import, which are no case's)
import peft  # noqa: F401
import yaml

from benchmark.__main__ import provenance, report
from benchmark.analysis.ablation import read_study
from benchmark.analysis.compare import compare, read_items
from benchmark.analysis.human_correlation import agreements, read_ratings
from benchmark.analysis.paper_tables import Filled, paper_table, read_rows
from benchmark.core.item import BenchmarkError, Geometry, Item, Loaded, Reference, Unscored
from benchmark.core.score_cache import ScoreStore
from benchmark.judges.judge import Judge
from benchmark.metrics.config import read_metrics
from benchmark.report.training_curves import read_curves
from benchmark.suites import open_suite
from benchmark.systems.results_folder import PrecomputedResults
from curation.engine.task_config import build, load_config
from curation.vlm.endpoint import Endpoint
from model import Editor
from model.data.mixture import read_mixture
from model.encoders.text import MiniLM
from tests.benchmark.stub import GOOD, Stub, said

NASTY: list[Any] = [
    None, True, False, -1, 0, 1, 7, 0.5, 1e308, -1e308, float("nan"), float("inf"), 1e12, 10**12, 10**30,
    2**63,
    "", "x" * 5000, "nan", "1e999", "../secret.mp4", "/etc/passwd", "/dev/zero", "a\0b", "\ud800", "<video1>",
    "os.system", "pathlib.Path", "model.encoders.t5.Path", "model.encoders.text.MiniLM",
    "benchmark.metrics.config.Path",
    "(a+)+$", r"(.*a){30}\w+", [], {}, [[]], [None] * 50, {"a": {"b": 1}}, ["../x"] * 3,
    functools.reduce(lambda inner, _: [inner], range(100), [1]),
]  # fmt: skip
BOMB = "\n".join(["a: &a [x, x, x, x, x, x, x, x, x]"] + [
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
])  # fmt: skip
TEXTS: list[Callable[[bytes, random.Random], bytes]] = [
    lambda data, r: data[: r.randrange(len(data) + 1)],
    lambda data, r: b"",
    lambda data, r: b"[" * 20_000 + data,
    lambda data, r: b'{"a":' * 20_000,
    lambda data, r: b"\xff\xfe" + data,
    lambda data, r: data.replace(b'"', b"\0", 1),
    lambda data, r: b"9" * 5000,
    lambda data, r: data.replace(b":", b": 1e999, \"x\":", 1),
    lambda data, r: BOMB.encode(),
    lambda data, r: b"a: &a [*a]",
    lambda data, r: b"- " * 3000 + b"1",
    lambda data, r: b"!!python/object/apply:os.system ['true']",
    lambda data, r: b"a: 2024-99-99",
    lambda data, r: b"a: " + b"1:" * 200_000 + b"1",
    lambda data, r: b"null",
    lambda data, r: data + data,
    lambda data, r: flipped(data, r),
]  # fmt: skip


def flipped(data: bytes, r: random.Random, most: int = 8) -> bytes:
    """Some bytes are others."""
    changed = bytearray(data)
    for _ in range(r.randint(1, most) if data else 0):
        changed[r.randrange(len(changed))] ^= 1 << r.randrange(8)
    return bytes(changed)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    pairs = (
        list(value.items() if isinstance(value, dict) else enumerate(value))
        if isinstance(value, dict | list)
        else []
    )
    return [(value, key) for key, _ in pairs] + [place for _, child in pairs for place in places(child)]


def mutated(value: Any, r: random.Random) -> Any:
    """A JSON value with one or two places deleted, added or replaced by something nasty."""
    value = json.loads(json.dumps(value))
    for _ in range(r.choice((1, 1, 2))):
        if not (every := places(value)):
            break
        container, key = r.choice(every)
        action = r.random()
        if action < 0.15 and isinstance(container, dict):
            del container[key]
        elif action < 0.25 and isinstance(container, dict):
            container[r.choice(("unknown", "\ud800", "", "__class__", "../x"))] = copy.deepcopy(
                r.choice(NASTY)
            )
        else:
            container[key] = copy.deepcopy(r.choice(NASTY))
    return value


def spoil(path: Path, r: random.Random, device: bool = True) -> None:
    """Change a JSON, JSONL, YAML or CSV file in place."""
    data = path.read_bytes()
    choice = r.random()
    if choice < 0.04 and device:
        path.unlink()
        path.symlink_to("/dev/zero")
    elif choice < 0.35 or path.suffix == ".csv":
        path.write_bytes(r.choice(TEXTS)(data, r))
    elif path.suffix in (".yaml", ".yml"):
        path.write_text(yaml.safe_dump(mutated(yaml.safe_load(data), r)), errors="replace")
    elif path.suffix == ".jsonl":
        lines = data.decode().splitlines()
        n = r.randrange(len(lines))
        lines[n] = json.dumps(mutated(json.loads(lines[n]), r))
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps(mutated(json.loads(data), r)))


def safetensors_header(path: Path, r: random.Random) -> None:
    """Change a safetensors file: its header as JSON, its length, its bytes, or its values."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    choice = r.random()
    if choice < 0.15:
        path.write_bytes(flipped(data[:200], r) + data[200:])
    elif choice < 0.25:
        path.write_bytes(data[: r.randrange(len(data))])
    elif choice < 0.35:
        path.write_bytes(struct.pack("<Q", r.choice((0, 1, 2**31, 2**63, size + 8))) + data[8:])
    elif choice < 0.5:
        start = r.randrange(len(body) // 4 - 1) * 4
        path.write_bytes(
            data[: 8 + size] + body[:start] + struct.pack("<f", float("nan")) + body[start + 4 :]
        )
    else:
        name = r.choice([n for n in header if n != "__metadata__"])
        if choice < 0.6:
            header[name]["dtype"] = r.choice(("I8", "I32", "BOOL", "F8_E4M3", "C64", "BF16", "Q9"))
        elif choice < 0.7:
            header[r.choice(("extra", "blocks.20000.x"))] = header.pop(name)
        else:
            header = mutated(header, r)
        text = json.dumps(header).encode(errors="replace")
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@functools.cache
def text_encoder() -> MiniLM:
    """One for all editors."""
    return MiniLM()


def edit(folder: Path, lora: Path | None = None) -> None:
    """Load a checkpoint and edit five frames with it."""
    editor = Editor.from_pretrained(folder, lora=lora)
    if isinstance(editor.text_encoder, MiniLM) and editor.text_encoder.path is None:
        editor.text_encoder = text_encoder()
    video = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    editor("<video1> Remove it.", video1=video, steps=min(editor.config.inference.steps, 2))


def config(folder: Path, r: random.Random | None) -> None:
    """config.json of a checkpoint."""
    if r:
        spoil(folder / "editor" / "config.json", r)
    edit(folder / "editor")


def weights(folder: Path, r: random.Random | None) -> None:
    """model.safetensors."""
    if r:
        safetensors_header(folder / "editor" / "model.safetensors", r)
    edit(folder / "editor")


def adapter(folder: Path, r: random.Random | None) -> None:
    """An adapter's two files."""
    if r and r.random() < 0.6:
        spoil(folder / "adapter" / "adapter_config.json", r)
    elif r:
        safetensors_header(folder / "adapter" / "adapter_model.safetensors", r)
    edit(folder / "editor", folder / "adapter")


def lists(folder: Path, r: random.Random | None) -> None:
    """Lists of the four benchmarks that have one, and every item that they name."""
    name = r.choice(SUITES) if r else SUITES[0]
    file = {
        "editversebench": "test.json",
        "imgedit": "basic_edit.json",
        "v2vbench": "config.yaml",
        "tgve_plus": "tgve_plus.jsonl",
    }[name]
    data = folder / name
    if r:
        spoil(data / file, r)
    for suite in [name] if r else SUITES:
        for item in open_suite(suite, folder / suite).items:
            opened = item.load()
            assert b"secret" not in b"".join(opened.inputs.values())


SUITES = ("editversebench", "imgedit", "v2vbench", "tgve_plus")


def results(folder: Path, r: random.Random | None) -> None:
    """Items whose results have another name, in a folder of results."""
    names = [
        "../secret.mp4", "/etc/passwd", "link.mp4", "a/../../secret.mp4", "loop/x.mp4", "/dev/zero",
        "zero.mp4",
        "x" * 5000, "\ud800.mp4", "a\0.mp4", "", ".", "pictures.mp4", "none.mp4", "0/generate.mp4/x",
    ]  # fmt: skip
    name = r.choice(names) if r else "0/generate.mp4"
    item = Item(
        "0", "t", "", "", "", "0", "0", None, lambda: Loaded(*[np.zeros(1)] * 3, 1.0, {}), result=name
    )
    found = PrecomputedResults("ours", folder / "results").result(item, item.load)
    if isinstance(found, Unscored):
        raise BenchmarkError(found.reason)
    assert r is None


@functools.cache
def stub() -> Stub:
    """An endpoint for all answers."""
    return Stub()


def answers(folder: Path, r: random.Random | None) -> None:
    """What a judge's endpoint sends."""
    server, reply = stub(), said(GOOD)
    if r:
        good = json.loads(GOOD)
        texts: list[str] = [
            json.dumps(mutated(good, r)), "[" * 20_000, '{"a":' * 20_000, "{" * 1_000_000, "9" * 5000,
            *(GOOD.replace("3", grade) for grade in ("9" * 5000, "NaN", "1e999", "true", '"3"', "[3]", "-1")),
            GOOD.replace("1}", '1, "reason": "\\ud800\\ud800"}'),
            "x" * 3_000_000, "\ud800", json.dumps(good | {"reason": "y" * 601}), json.dumps(mutated(good, r)),
        ]  # fmt: skip
        reply = said(r.choice(texts))
        if r.random() < 0.4:
            body = r.choice(TEXTS)(reply[2].encode(errors="replace"), r).decode(errors="replace")
            whole = json.loads(reply[2])
            changed = json.dumps(mutated(whole, r), default=str)
            reply = (
                r.choice((200, 200, 400, 500)),
                {"Content-Type": "application/json"},
                r.choice((body, changed)),
            )
    server.reply = lambda n, request: reply
    source = np.zeros((3, 16, 16, 3), np.uint8)
    told = Loaded(source, source, None, 10.0, {})
    reference = Reference(told, Geometry(3, 16, 16, 10.0), {"instruction": "Make it blue."})
    score = Judge(Endpoint(server.url, "m", timeout=5.0, retries=0), concurrency=1)(reference, source)
    if isinstance(score, Unscored):
        raise BenchmarkError(score.reason)
    assert 0 <= score <= 9
    store = ScoreStore(folder / "fresh.jsonl")
    store.put([("x", score, {"item": "0"})])


def settings(folder: Path, r: random.Random | None) -> None:
    """The YAML files that people pass around: metrics, mixtures, studies, rows of tables, tasks."""
    which = r.choice(("metrics", "mixture", "study", "rows", "task", "recursive")) if r else "all"
    if r and which != "recursive":
        spoil(folder / f"{which}.yaml", r)
    if which in ("metrics", "all"):
        read_metrics(folder / "metrics.yaml", "corrected")
    if which in ("mixture", "all"):
        read_mixture(folder / "mixture.yaml")
    if which == "recursive":
        (folder / "mixture.yaml").write_text("base: mixture.yaml\ndrop: []\n")
        read_mixture(folder / "mixture.yaml")
    if which in ("study", "all"):
        read_study(folder / "study.yaml")
    if which in ("rows", "all"):
        table = paper_table("2")
        Filled(table, read_rows(folder / "rows.yaml", table)).csv()
    if which in ("task", "all"):
        build(load_config("cg_removal", folder / "task.yaml"))


def stores(folder: Path, r: random.Random | None) -> None:
    """What a run leaves: scores, items, provenance, curves; and people's ratings."""
    names = ("scores.jsonl", "items.json", "made.json", "curve.csv", "ratings.csv", "config.json")
    which = r.choice(names) if r else "all"
    if r:
        spoil(folder / "run" / which, r, device=which != "config.json")
    if which in ("scores.jsonl", "all"):
        ScoreStore(folder / "run" / "scores.jsonl")
    if which in ("items.json", "ratings.csv", "all"):
        items = read_items(folder / "run")
        compare(items, items, "ours")
        agreements(items, read_ratings(folder / "run" / "ratings.csv"))
    if which in ("made.json", "all"):
        provenance(folder / "run", fresh=False)
    if which in ("curve.csv", "all"):
        read_curves(folder / "run" / "curve.csv")
    if which == "config.json":
        report(str(folder / "run"))


KINDS: dict[str, Callable[[Path, random.Random | None], None]] = {
    "config": config, "weights": weights, "adapter": adapter, "lists": lists, "results": results,
    "answers": answers, "settings": settings, "stores": stores,
}  # fmt: skip


text_encoder().encode(["loaded before the first case"])


def run(case: str) -> None:
    """One case, on a copy of the whole files."""
    kind, number, base = case.split(" ", 2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "files"
        shutil.copytree(base, folder, symlinks=True)
        KINDS[kind](folder, random.Random(f"{kind} {number}") if int(number) >= 0 else None)

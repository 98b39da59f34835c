"""One style of command line for every command."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from benchmark.__main__ import main as benchmark_main
from benchmark.analysis.ablation import read_study
from curation.engine.run_all import read_runs
from model.cli import main as model_main
from model.data.mixture import read_mixture
from shards.command import Parser
from shards.resources import config_root
from shards.terminal import parts


def work(place: str, dry_run: bool = False, keep: bool = True, add_metrics: str = "", names: int = 0) -> str:
    """Give back what it gets."""
    return f"{place} {dry_run} {keep} {add_metrics} {names}"


def other(place: str = "none") -> str:
    """Another command."""
    return place


def run(*words: str) -> str:
    return auto_cli([work, other], args=list(words), parser_class=Parser)


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["a"], "a False True  0"),
        (["a", "--dry_run", "true"], "a True True  0"),
        (["a", "--dry-run"], "a True True  0"),
        (["--dry-run", "a"], "a True True  0"),
        (["--dry_run", "--no-keep", "a", "--names", "3"], "a True False  3"),
        (["a", "--no-dry-run", "--no_keep"], "a False False  0"),
        (["a", "--keep=false", "--add-metrics", "m.yaml"], "a False False m.yaml 0"),
        (["a", "--dry-run", "False"], "a False True  0"),
        (["other"], "other False True  0"),
    ],
)
def test_flags_and_names(words: list[str], result: str) -> None:
    assert run("work", *words) == result


def test_a_configuration_that_comes_along_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nano = str(config_root() / "train" / "nano.yaml")
    assert run("other", "--place", "configs/train/nano.yaml") == nano
    assert run("other", "--place=configs/train/nano.yaml") == nano
    assert run("other", "--place", "configs/train/none.yaml") == "configs/train/none.yaml"


@pytest.mark.parametrize("word", ["--add-metric", "--no-names", "--no-such", "--no-dry-run=true"])
def test_a_slip_is_named_as_typed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("work", "a", word)
    assert f"error: {word.partition('=')[0]}: no such argument" in capsys.readouterr().err


def settings(*words: str) -> dict[str, Any]:
    """The settings that `model fit --print_config` gives."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        model_main(["fit", "--run", "r", *words, "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(printed.getvalue())


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "sub/fit.yaml"],  # names the mixture itself
        ["--config", "fit.yaml"],  # names a file of the section data, which names the mixture
        ["--config", "sub/deeper/fit.yaml"],
        ["--data", "sub/data.yaml"],
        ["--data.mixture", "sub/mixture.yaml"],
    ],
)
def test_a_file_is_found_beside_the_one_that_names_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    for name, text in {
        "sub/mixture.yaml": "rows: {}",
        "mixture.yaml": "rows: {}",  # another one, where the command is given
        "sub/data.yaml": "mixture: mixture.yaml",
        "sub/fit.yaml": "data: {mixture: mixture.yaml, shards: [a/b]}\nparallel: {cost: ../cost.json}",
        "sub/deeper/fit.yaml": "data: ../data.yaml",
        "fit.yaml": "data: sub/data.yaml",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    found = settings(*words)
    assert found["data"]["mixture"] == "sub/mixture.yaml"
    if words[-1] == "sub/fit.yaml":
        assert found["data"]["shards"] == ["a/b"]  # data are found from the folder of the command
        assert found["parallel"]["cost"] == "cost.json"
    monkeypatch.chdir(tmp_path / "sub")
    again = [word.replace("fit.yaml", "../fit.yaml") if word == "fit.yaml" else word for word in words]
    again = [word.removeprefix("sub/") for word in again]
    assert Path(settings(*again)["data"]["mixture"]).resolve() == tmp_path / "sub" / "mixture.yaml"


def test_each_of_several_files_has_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "first/fit.yaml": "data: {mixture: mixture.yaml}",
        "second/overlay.yaml": "parallel: {cost: cost.json}\ntrain: {steps: 3}",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for words in (["first/fit.yaml", "second/overlay.yaml"], ["second/overlay.yaml", "first/fit.yaml"]):
        found = settings("--config", words[0], "--config", words[1])
        assert found["data"]["mixture"] == "first/mixture.yaml"
        assert found["parallel"]["cost"] == "second/cost.json"


def test_a_file_that_is_not_beside_the_one_that_names_it_is_not_looked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "mixture.yaml").write_text("rows: {}")
    (tmp_path / "sub" / "fit.yaml").write_text("data: {mixture: mixture.yaml}")
    monkeypatch.chdir(tmp_path)
    assert settings("--config", "sub/fit.yaml")["data"]["mixture"] == "sub/mixture.yaml"
    (tmp_path / "sub" / "fit.yaml").write_text("data: {mixture: configs/train/mixtures/nano.yaml}")
    (tmp_path / "sub" / "model.yaml").write_text("model: configs/model/nano.yaml")
    shipped = config_root() / "train" / "mixtures" / "nano.yaml"
    assert (
        settings("--config", "sub/model.yaml")["model"]
        == settings("--model", "configs/model/nano.yaml")["model"]
    )
    assert settings("--config", "sub/fit.yaml")["data"]["mixture"] == str(shipped)


@pytest.mark.parametrize(
    "file", sorted((config_root() / "train").rglob("*.yaml")), ids=lambda path: path.stem
)
def test_what_the_shipped_files_name_is_there_from_any_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if file.parent.name == "mixtures":
        assert read_mixture(file).rows
    elif file.name == "study.yaml":
        study = read_study(Path("configs/train") / file.relative_to(config_root() / "train"))
        arms = study.arms.values()
        named = [study.train, *(name for arm in arms for name in (*arm.config, arm.mixture, arm.before))]
        assert all(Path(name).is_file() for name in named if name)
    else:
        mixture = settings("--config", str(file))["data"]["mixture"]
        assert mixture is None or read_mixture(mixture).rows


def test_metrics_are_found_beside_the_configuration_of_a_benchmark_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "run.yaml").write_text("metrics: mine.yaml\nadd_metrics: ../more.yaml")
    (tmp_path / "sub" / "all.yaml").write_text("run: {metrics: mine.yaml}")
    monkeypatch.chdir(tmp_path)
    for words in (["run", "--config", "sub/run.yaml"], ["--config", "sub/all.yaml", "run"]):
        monkeypatch.setattr(sys, "argv", ["python -m benchmark", *words, "--print_config"])
        with pytest.raises(SystemExit):
            benchmark_main()
        found = yaml.safe_load(capsys.readouterr().out)
        assert found["metrics"] == "sub/mine.yaml"
        assert found["add_metrics"] == ("more.yaml" if words[0] == "run" else None)


def test_runs_and_bases_are_found_beside_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "task.yaml").write_text("class_path: x")
    (tmp_path / "sub" / "runs.yaml").write_text("runs: {mine: {task: cg_removal, config: task.yaml}}")
    (tmp_path / "sub" / "mixture.yaml").write_text("rows: {a: {shards: [data]}}")
    (tmp_path / "sub" / "overlay.yaml").write_text("base: mixture.yaml\nchange: {a: {ratio: 2}}")
    monkeypatch.chdir(tmp_path)
    assert read_runs(Path("sub/runs.yaml"))[0].config == Path("sub/task.yaml")
    assert read_mixture("sub/overlay.yaml").rows["a"].shards == ("data",)


def widths_of(counts: list[int], width: int) -> list[list[str]]:
    """Headings of each printed table, for columns as wide as given, on a terminal of `width` columns."""
    names = [f"{'c' * (count - 1)}{number}" for number, count in enumerate(counts)]
    table = Table(*names)
    for column in table.columns:
        column.no_wrap = True
    console = Console(width=width)
    return [[str(column.header) for column in part.columns] for part in parts(table, console)]


def test_no_column_of_a_table_is_alone_below_where_another_can_join_it() -> None:
    tables = widths_of([10, 10, 10, 10, 6], 55)  # four columns fit, and the last one would be alone
    assert [len(names) for names in tables] == [3, 3]
    first = tables[0][0]
    assert all(names[0] == first for names in tables)  # every part has the first column
    assert [n for names in tables for n in names[1:]] == [f"{'c' * 9}{n}" for n in (1, 2, 3)] + ["ccccc4"]
    assert [len(names) for names in widths_of([10, 10, 10, 10], 60)] == [4]
    assert [len(names) for names in widths_of([10, 10, 10, 30], 45)] == [3, 2]  # two that do not fit together
    assert [len(names) for names in widths_of([10, 10, 10, 10], 40)] == [3, 2]  # none to spare

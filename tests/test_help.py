"""The help of every command in a terminal of 80 columns: pages of 20 options at most."""

from __future__ import annotations

import re

import pytest

from editverse.__main__ import DATA, PACKAGES, SHORT
from editverse.__main__ import main as editverse_main
from model.cli import main as model_main
from tests.help_pages import MARK
from tests.terminal import WIDTH, Terminal

MOST = 20


def options(page: str) -> list[str]:
    """The options that a page shows, by their longest name."""
    rows = re.findall(r"^  (-[^\n]+?)(?:  |$)", page, re.MULTILINE)
    return [re.findall(r"--[\w.]+", row)[-1] for row in rows]


def all_pages(*words: str) -> dict[str, str]:
    """Every page of a package's help, by the words that ask for it."""
    with Terminal("tests.help_pages", *words) as terminal:
        assert terminal.end() == 0, terminal.output
    _, *printed = (
        terminal.output.split(f"\n{MARK}")
        if not terminal.output.startswith(MARK)
        else [
            "",
            *terminal.output.removeprefix(MARK).split(f"\n{MARK}"),
        ]
    )
    return dict(text.split("\n", 1) for text in printed)  # type: ignore[misc]


@pytest.mark.parametrize("package", [*PACKAGES, "editverse.speedrun"])
def test_a_page_has_20_options_at_most_and_fits_80_columns_and_every_option_has_a_page(package: str) -> None:
    pages = all_pages(package)
    assert f"{package} --help" in pages
    reached: dict[str, set[str]] = {}
    for words, page in pages.items():
        assert max(map(len, page.splitlines())) <= WIDTH, words
        if not words.endswith("--help=all"):
            assert len(options(page)) <= MOST, (words, options(page))
            reached.setdefault(words.partition(" --")[0], set()).update(options(page))
    everything = {words: page for words, page in pages.items() if words.endswith("--help=all")}
    assert everything
    for words, page in everything.items():
        assert set(options(page)) <= reached[words.partition(" --")[0]], words
    counts = {words: len(options(page)) for words, page in everything.items()}
    if package == "model":  # the count does see the options of the largest commands
        assert counts["model fit --help=all"] > 80
        assert counts["model fit --help=all"] < counts["model submit --help=all"]


def test_a_switch_is_shown_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        model_main(["fit", "--help=parallel"])
    assert re.search(
        r"^  --parallel\.compile, --no_parallel\.compile$", capsys.readouterr().out, re.MULTILINE
    )


def test_the_short_names_lead_to_the_same_pages() -> None:
    pages = all_pages("editverse", *SHORT)
    assert len(pages) == len(SHORT) + 1
    for words, page in pages.items():
        assert max(map(len, page.splitlines())) <= WIDTH, words
        assert len(options(page)) <= MOST, words
    assert "usage: python -m model fit --run RUN [options]" in pages["editverse train --help"]


def test_data_in_and_out_has_a_word_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert editverse_main(["data"]) == 0
    usage = capsys.readouterr().out
    assert max(map(len, usage.splitlines())) <= WIDTH
    assert all(f"  {name} " in usage for name in DATA)
    assert editverse_main(["data", "fly"]) == 2
    assert "no command 'fly' of data; there are: import," in capsys.readouterr().err
    with pytest.raises(SystemExit):
        editverse_main(["data", "import", "--help"])
    assert "usage: python -m curation import format source [options]" in capsys.readouterr().out


def test_a_section_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert model_main(["fit", "--help=date"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --help=date: no such section; there are distill, data, model, ")
    assert model_main(["forms", "--help=data"]) == 2
    assert "--help=data: no such section" in capsys.readouterr().err


def test_the_word_behind_help_is_no_section(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        model_main(["--help", "fit"])
    assert ended.value.code == 0
    assert "Available subcommands:" in capsys.readouterr().out

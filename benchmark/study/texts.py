"""What raters read, in one YAML file for each language."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

import yaml

from benchmark.study.records import StudyError
from shards.errors import first_line
from shards.files import atomic_path

FOLDER = Path(__file__).parent / "texts"
OWN = "texts.yaml"  # in a study's folder, for a language that does not come with us


def read_texts(language: str) -> dict[str, str]:
    """The texts of a language by name.

    Args:
        language: a file of `FOLDER` without its ending (`en`), or the path of another YAML file.

    Raises:
        StudyError: there is no such file; it lacks a text, has one more, or its words in braces are others
            than those of the English one. It names the file and the text.
    """
    path = FOLDER / f"{language}.yaml" if _comes_with_us(language) else Path(language)
    try:
        texts = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise StudyError(f"language: {language}: is neither a language ({known}) nor a file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: {first_line(error)}") from None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise StudyError(f"{path}: should map names to texts, as {FOLDER / 'en.yaml'} does")
    english = texts if path == FOLDER / "en.yaml" else read_texts("en")
    if missing := sorted(english.keys() - texts.keys()):
        raise StudyError(f"{path}: {missing[0]}: is missing ({len(missing)} in all)")
    if unknown := sorted(texts.keys() - english.keys()):
        raise StudyError(f"{path}: {unknown[0]}: is no text of the pages")
    for name, text in texts.items():
        if _fields(path, name, text) != (wanted := _fields(path, name, english[name])):
            words = " and ".join(f"{{{word}}}" for word in sorted(wanted)) or "no words"
            raise StudyError(f"{path}: {name}: should have {words} in braces")
    return texts


def study_texts(folder: Path, language: str) -> Mapping[str, str]:
    """The texts of a study: those of its own file where its folder has one, else of its language."""
    own = folder / OWN
    return read_texts(str(own) if own.is_file() else language)


def keep_texts(folder: Path, language: str) -> None:
    """Check the texts of a language, and keep in a study's folder those that do not come with us."""
    texts = read_texts(language)
    if not _comes_with_us(language):
        with atomic_path(folder / OWN) as path:
            path.write_text(yaml.safe_dump(texts, allow_unicode=True, sort_keys=False), "utf-8")


def _comes_with_us(language: str) -> bool:
    return Path(language).name == language and (FOLDER / f"{language}.yaml").is_file()


def _fields(path: Path, name: str, text: str) -> set[str]:
    """The words in braces of a text."""
    try:
        return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise StudyError(f"{path}: {name}: {error}") from None

"""The house stands: no circle between rooms, no arrow up, our own imports where a reader looks for them.

The numbers are those of `python -m tests.rooms`.
"""

from __future__ import annotations

import ast

import pytest

from tests import rooms

ROOMS, LAYERS = rooms.rooms(), rooms.layers()


@pytest.mark.parametrize("package", rooms.PACKAGES)
def test_no_rooms_import_each_other_in_a_circle(package: str) -> None:
    assert rooms.circles(ROOMS[package]) == []


@pytest.mark.parametrize("package", rooms.PACKAGES)
def test_no_arrow_leads_up(package: str) -> None:
    assert rooms.upward(ROOMS[package], LAYERS[package]) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = rooms.modules()
    edges: dict[str, set[str]] = {name: set() for name in known}
    for arrow in rooms.arrows(known):
        if not arrow.for_types:
            edges[arrow.source].add(arrow.target)
    assert rooms.circles(edges) == []


def test_our_own_imports_stand_at_the_top_or_say_why_not() -> None:
    odd = []
    for path in rooms.modules().values():
        text = path.read_text()
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                    ours = any(name.partition(".")[0] in rooms.PACKAGES for name in names)
                    line = text.splitlines()[node.lineno - 1] if ours else ""  # type: ignore[attr-defined]
                    if ours and "#" not in line:
                        odd.append(f"{path}: {line.strip()}")
    assert odd == []


def test_a_circle_and_an_arrow_up_are_seen() -> None:
    edges = {"m.a": {"m.b"}, "m.b": {"m.c"}, "m.c": {"m.a"}, "m.d": {"m.a"}}
    assert rooms.circles(edges) == [["m.a", "m.b", "m.c"]]
    assert rooms.upward({"m.a": {"m.b"}, "m.b": set()}, {"m.a": 0, "m.b": 1}) == ["m.a -> m.b"]
    assert rooms.upward({"m.a": {"m.b"}, "m.b": set()}, {"m.a": 1, "m.b": 0}) == []

"""The rooms of the house and the arrows between them, from the imports: `python -m tests.rooms`.

A room is a folder, or a module that lies in a package's own folder. An arrow leads from a room to another one
that it imports, wherever in the file the import stands. It leads up unless it ends on a lower floor than it
begins; the floors are the layers of import-linter in `pyproject.toml`.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("shards", "curation", "model", "benchmark")


@dataclass(frozen=True)
class Arrow:
    """One import: the module that has it, and the module that it names."""

    source: str
    target: str
    for_types: bool


def modules(root: Path = ROOT) -> dict[str, Path]:
    """All modules of the packages and their files."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows(known: dict[str, Path]) -> list[Arrow]:
    """Every import of one module by another."""
    found = []
    for name, path in known.items():
        tree = ast.parse(path.read_text())
        guarded = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            for target in targets(node, known):
                if target != name:
                    found.append(Arrow(name, target, id(node) in guarded))
    return found


def targets(node: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a statement imports."""
    if isinstance(node, ast.ImportFrom) and node.module in known:
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name if name in known else node.module for name in whole)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)


def room_of(module: str, known: dict[str, Path]) -> str:
    """The folder of a module; the module itself if it lies in its package's own folder."""
    if known[module].name == "__init__.py" or module.count(".") < 2:
        return module
    return module.rpartition(".")[0]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components with more than one member (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            members = []
            while not members or members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def floors(edges: dict[str, set[str]]) -> dict[str, int]:
    """The lowest floor on which each room can lie: above all that it imports."""
    height: dict[str, int] = {}

    def of(node: str, way: tuple[str, ...] = ()) -> int:
        if node in way:  # a circle has no floors
            return 0
        if node not in height:
            height[node] = max((1 + of(o, (*way, node)) for o in edges.get(node, ())), default=0)
        return height[node]

    for node in edges:
        of(node)
    return height


def rooms(root: Path = ROOT) -> dict[str, dict[str, set[str]]]:
    """By package: its rooms, and the rooms of the package that each imports."""
    known = modules(root)
    found: dict[str, dict[str, set[str]]] = {package: {} for package in PACKAGES}
    for module in known:
        if module not in PACKAGES:
            found[module.partition(".")[0]].setdefault(room_of(module, known), set())
    for arrow in arrows(known):
        start, end = room_of(arrow.source, known), room_of(arrow.target, known)
        package = start.partition(".")[0]
        if start != end and package == end.partition(".")[0] and package not in (start, end):
            found[package][start].add(end)
    return found


def layers(root: Path = ROOT) -> dict[str, dict[str, int]]:
    """By package: the floor of each room, counted from the bottom, as `pyproject.toml` has it."""
    with (root / "pyproject.toml").open("rb") as handle:
        contracts = tomllib.load(handle)["tool"]["importlinter"]["contracts"]
    found = {}
    for contract in contracts:
        if contract["type"] == "layers":
            (package,) = contract["containers"]
            rows = [row.split(" | ") for row in reversed(contract["layers"])]
            found[package] = {f"{package}.{room}": n for n, row in enumerate(rows) for room in row}
    return found


def upward(edges: dict[str, set[str]], floor: dict[str, int]) -> list[str]:
    """The arrows that do not lead to a lower floor; a room inside a room lies on its floor, under it."""

    def of(room: str) -> int | None:
        return floor.get(room, floor.get(".".join(room.split(".")[:2])))

    found = []
    for start, ends in sorted(edges.items()):
        for end in sorted(ends):
            a, b = of(start), of(end)
            inside = end.startswith(start + ".")
            if a is None or b is None or (a <= b and not inside):
                found.append(f"{start} -> {end}")
    return found


def report(root: Path = ROOT) -> list[str]:
    """The table: rooms, arrows, circles and arrows up by package, then each floor from the top."""
    floor_of = layers(root)
    lines = [f"{'package':<10}{'rooms':>7}{'arrows':>8}{'circles':>9}{'up':>5}{'floors':>8}"]
    for package, edges in rooms(root).items():
        up = len(upward(edges, floor_of[package])) if package in floor_of else 0
        numbers = (
            len(edges),
            sum(map(len, edges.values())),
            len(circles(edges)),
            up,
            1 + max(floors(edges).values()),
        )
        lines.append("{:<10}{:>7}{:>8}{:>9}{:>5}{:>8}".format(package, *numbers))
    for package, edges in rooms(root).items():
        height = floors(edges)
        lines += ["", package]
        for n in sorted(set(height.values()), reverse=True):
            lines.append(f"  {n}  " + ", ".join(r.partition(".")[2] for r in sorted(edges) if height[r] == n))
    return lines


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)))

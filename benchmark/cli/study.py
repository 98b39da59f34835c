"""`python -m benchmark study ...`: a human study from its definition to its ranking."""

from __future__ import annotations

import csv
import getpass
import itertools
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from benchmark.core.item import BenchmarkError
from benchmark.study.definition import read_definition
from benchmark.study.records import MAX_LABEL
from shards.errors import first_line
from shards.help_pages import help_page
from shards.sockets import web_address
from shards.terminal import print_table

console = Console(stderr=True)


def create(
    definition: str = "study.yaml",
    out: str = "runs/mystudy",
    database: str | None = None,
    allow_missing: bool = False,
    lengths: Literal["same", "cut"] = "same",
    jobs: int | None = None,
) -> None:
    """Make a study: its videos, who compares what, and an empty database for the votes.

    Args:
        definition: YAML file of the study; its relative paths are those of this folder
        out: a new folder
        database: postgresql://USER@HOST/NAME, without a study in it; if not given, SQLite in the folder
        allow_missing: leave out items that cannot be used or that a method has no result of
        lengths: same refuses results that are not as long as their source to a frame; cut cuts all clips
            of an item to the shortest
        jobs: items whose videos are made at a time; if not given, as many as there are processors
    """
    from benchmark.study.creation import create_study  # SQLAlchemy, which other commands need not
    from benchmark.votes.plan import plan_lines  # as above

    if jobs is not None and jobs < 1:
        raise BenchmarkError(f"--jobs {jobs}: needs at least 1")
    read = read_definition(Path(definition))
    with console.status("reading") as status:
        made = create_study(
            read,
            Path(out),
            database,
            allow_missing=allow_missing,
            cut=lengths == "cut",
            jobs=jobs,
            tell=lambda what, done, of: status.update(f"{what}: {done} of {of} items"),
        )
    for remark in made.remarks:
        console.print(f"[yellow]note[/yellow] {escape(remark)}", highlight=False, soft_wrap=True)
    for line in plan_lines(read, made):
        print(line)
    print(f"study: {made.folder.resolve()}")


def invite(
    study: str,
    count: int | None = None,
    labels: str | None = None,
    base_url: str = "http://127.0.0.1:8080",
) -> None:
    """Give seats to raters and print their links as CSV, which is the only time that they can be had.

    Args:
        study: its folder
        count: so many raters, called rater-01, rater-02 and so on
        labels: file with a name on each line in place of a count; raters never see each other's
        base_url: the address under which it is served, such as https://study.example.org
    """
    from benchmark.study.folder import open_study  # as above
    from benchmark.study.security import ServeSettings  # as above

    if (count is None) == (labels is None):
        raise BenchmarkError("study invite: needs either --count or --labels")
    store, settings = open_study(Path(study)), ServeSettings(base_url)
    taken = {rater.label for rater in store.raters()}
    names = new_labels(count, taken) if labels is None else read_labels(Path(labels), taken)
    if len(names) > (free := len(store.totals) - len(taken)):
        raise BenchmarkError(f"{study}: {len(names)} raters are more than the {free} seats that are free")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["label", "link"])
    for name in names:
        _, token = store.invite(name)
        writer.writerow([name, settings.link(token)])
        sys.stdout.flush()  # what comes after may fail, and this link is stored nowhere


def new_labels(count: int | None, taken: Collection[str]) -> list[str]:
    """So many labels that nobody has yet."""
    if count is None or count < 1:
        raise BenchmarkError(f"--count {count}: needs at least 1")
    numbered = (f"rater-{number:02d}" for number in itertools.count(1))
    return list(itertools.islice((name for name in numbered if name not in taken), count))


def read_labels(path: Path, taken: Collection[str]) -> list[str]:
    """The labels in a file; BenchmarkError for one that is there twice, too long, or taken."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"--labels {path}: {first_line(error)}") from None
    names = [line.strip() for line in lines if line.strip()]
    seen = set(taken)
    for name in names:
        if len(name) > MAX_LABEL or not name.isprintable():
            raise BenchmarkError(
                f"--labels {path}: {name[:MAX_LABEL]!r} is no label: at most {MAX_LABEL} characters"
            )
        if name in seen:
            raise BenchmarkError(f"--labels {path}: {name} is there twice, or is invited already")
        seen.add(name)
    if not names:
        raise BenchmarkError(f"--labels {path}: holds no label")
    return names


def status(study: str) -> None:
    """Show how far a study is: raters, attention checks, votes by pair of methods, and what is still needed.

    Args:
        study: its folder
    """
    from benchmark.study.design import method_pairs  # as above
    from benchmark.study.folder import open_study  # as above
    from benchmark.votes.power import closest_methods  # as above
    from benchmark.votes.raters import rater_checks  # as above

    store = open_study(Path(study))
    votes, raters, closed = store.votes(), store.raters(), store.closed
    checks = {check.label: check for check in rater_checks(store.definition, votes)}
    table = Table(Column("rater", no_wrap=True), title=escape(store.definition.name))
    for head in ("answered", "of", "s a pair", "checks right", "repeats equal"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("by the rule", no_wrap=True)
    for rater in raters:
        check, cells = checks.get(rater.label), ["-", "-", "-", ""]
        if check is not None:
            cells = ["-" if check.seconds is None else f"{check.seconds:.1f}"]
            cells += [
                f"{right} of {of}" if of else "-"
                for right, of in (
                    (check.gold_right, check.gold_answers),
                    (check.repeats_equal, check.repeats_answers),
                )
            ]
            cells.append("left out" if check.reasons else "kept")
        table.add_row(escape(rater.label), str(rater.answered), str(rater.total), *cells)
    print_table(table)
    met = Counter(frozenset((vote.left, vote.right)) for vote in votes if vote.kind == "pair")
    table = Table(Column("pair of methods", no_wrap=True), Column("votes", justify="right", no_wrap=True))
    for pair in method_pairs(store.definition):
        table.add_row(escape(" - ".join(pair)), str(met[frozenset(pair)]))
    print_table(table)
    answered = sum(rater.answered for rater in raters)
    print(
        f"{len(raters)} of {len(store.totals)} seats taken; {answered} of {sum(store.totals.values())} votes"
    )
    print("open" if closed is None else f"closed since {closed:%Y-%m-%d %H:%M} UTC")
    closest = closest_methods(store.definition, votes)
    if closest is not None:
        print(f"closest: {closest.first} and {closest.second}, {_more(closest.more)}")


def _more(ratings: int | None) -> str:
    if ratings is None:
        return "which no number of ratings would tell apart as they stand"
    return (
        f"told apart by about {ratings} more ratings of the two" if ratings else "told apart by their votes"
    )


def close(study: str) -> None:
    """Take no more votes.

    Args:
        study: its folder
    """
    _close(study, True)


def open_(study: str) -> None:
    """Take votes again.

    Args:
        study: its folder
    """
    _close(study, False)


def _close(study: str, closed: bool) -> None:
    from benchmark.study.folder import open_study  # as above

    open_study(Path(study)).close(closed)
    print(f"{study}: {'closed' if closed else 'open'}")


def delete(study: str, rater: str | None = None) -> None:
    """Delete a rater with all their votes; their seat is free again.

    Args:
        study: its folder
        rater: their label
    """
    from benchmark.study.folder import open_study  # as above

    if rater is None:
        raise BenchmarkError("study delete: needs --rater, a label; `study status` lists them")
    store = open_study(Path(study))
    known = {of.label: of.id for of in store.raters()}
    if rater not in known:
        raise BenchmarkError(f"--rater {rater}: the study has no such rater")
    print(f"{rater}: deleted with {store.delete_rater(known[rater])} votes")


def admin(study: str, password_file: str | None = None) -> None:
    """Set the password of the page /admin, which has none before; whoever is logged in is logged out.

    Args:
        study: its folder
        password_file: file whose first line is the password; asked for if not given
    """
    from benchmark.study.admin import hash_password  # FastAPI, which other commands need not
    from benchmark.study.folder import open_study  # as above

    store = open_study(Path(study))
    if password_file is not None:
        try:
            password = Path(password_file).read_text("utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as error:
            raise BenchmarkError(f"--password-file {password_file}: {first_line(error)}") from None
    elif sys.stdin.isatty():
        password = getpass.getpass(f"password of {study}/admin: ")
        if getpass.getpass("again: ") != password:
            raise BenchmarkError("the passwords differ; nothing was changed")
    else:
        raise BenchmarkError("study admin: no terminal to ask for a password; give --password-file")
    store.set_admin(hash_password(password))
    print("the password is set")


@help_page(
    sections={"proxy": ("behind a reverse proxy", ("base_url", "trusted_hosts", "forwarded_allow_ips"))}
)
def serve(
    study: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    base_url: str | None = None,
    trusted_hosts: tuple[str, ...] = (),
    forwarded_allow_ips: str = "",
    insecure: bool = False,
    workers: int = 1,
) -> None:
    """Serve a study's pages to its raters until Ctrl-C.

    Args:
        study: its folder
        host: address to listen at; others than this machine's own need --base-url with https
        port: 0 for any that is free
        base_url: the address that raters open, such as https://study.example.org
        trusted_hosts: further names under which it is opened
        forwarded_allow_ips: addresses of proxies whose X-Forwarded-For and -Proto are believed
        insecure: serve other machines without https, where nobody can listen
        workers: processes
    """
    from benchmark.study.security import ServeSettings  # FastAPI, as the next one
    from benchmark.study.serve import serve as serve_study  # which other commands need not

    settings = None
    if base_url is not None or trusted_hosts or forwarded_allow_ips:
        settings = ServeSettings(base_url or web_address(host, port), trusted_hosts, forwarded_allow_ips)
    serve_study(Path(study), host, port, settings, insecure, workers)

"""The commands of `python -m shards` that report on folders: ledger, stats, browse."""

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path
from typing import Literal

from shards.reports import ledger as receipts
from shards.reports.browse import browser
from shards.reports.costs import checked_prices
from shards.reports.pages import Samples
from shards.reports.server import Server, needs_pages
from shards.reports.statistics import print_statistics, statistics_of, write_statistics


def ledger(
    directories: list[str],
    format: Literal["table", "jsonl", "csv", "json"] = "table",
    out: Path | None = None,
    prices: dict[str, float] | None = None,
) -> None:
    """Tell where samples come from, what may be used commercially, what pairs cost.

    Args:
        directories: shard folders or URLs
        format: table: totals; jsonl, csv: a line for every sample; json: totals
        out: write a line for every sample to this .jsonl or .csv, too
        prices: of an hour, for the price of a pair: '{cpu_hour: 0.04, gpu_hour: 2.5}'
    """
    totals, hours = receipts.Totals(), checked_prices(prices)
    found = receipts.rows(directories, totals)
    if format in ("jsonl", "csv") and out is None:
        receipts.write_rows(found, sys.stdout, format)
        return
    if out is not None:
        receipts.write_file(found, out)
    else:
        deque(found, maxlen=0)  # counts them
    if format == "json":
        print(json.dumps(totals.to_json(hours), indent=2, ensure_ascii=False))
    else:
        receipts.print_totals(totals, hours)
    if out is not None:
        print(f"{out}: {totals.samples} samples", file=sys.stderr)


def stats(
    directories: list[str],
    format: Literal["table", "json"] = "table",
    out: Path | None = None,
    scores: bool = True,
) -> None:
    """Count what is in shard folders: sizes, lengths, rates, tokens, tasks, words, scores.

    Args:
        directories: shard folders or URLs
        format: table or json, on stdout
        out: a folder for stats.json, a plot (SVG) of every distribution, and stats.html
        scores: count the scores too; the samples' own are read out of the tars once for that
    """
    found = statistics_of(directories, scores)
    if out is not None:
        write_statistics(found, out)
        print(f"{out / 'stats.html'}", file=sys.stderr)
    if format == "json":
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        print_statistics(found)


def browse(
    directories: list[str], host: str = "127.0.0.1", port: int = 8770, allowed_hosts: tuple[str, ...] = ()
) -> None:
    """Serve a page to look through samples by task, text and scores, until Ctrl-C.

    Args:
        directories: shard folders or URLs
        host: address to listen at; whoever reaches another one than 127.0.0.1 sees the samples
        port: 0 for any that is free
        allowed_hosts: names under which the page is reached, where a proxy serves it
    """
    needs_pages()
    server = Server(browser(Samples(directories), allowed_hosts), host, port)
    print(f"{server.url} shows the samples; Ctrl-C ends it", flush=True)
    server.run()

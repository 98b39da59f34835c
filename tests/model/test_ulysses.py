"""A pack that ranks share gives what it gives alone, and its gradients; plans of four ranks share some."""

from __future__ import annotations

from tests.forked import ranks, wait_for_ranks


def test_a_shared_pack_predicts_what_it_does_alone() -> None:
    """Both families and contexts, keys for several queries, runs that cut sequences and lack some."""
    code, errors = wait_for_ranks(ranks(4, "tests.model.shared_pack"))
    assert code == 0, errors[-4000:]

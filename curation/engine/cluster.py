"""The Ray cluster that a run is given by address: whether it is there, and what it has."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.engine.task_config import RunError, one_line

PATIENCE = 300.0  # seconds in which the nodes of a job come up


@dataclass(frozen=True)
class Node:
    """A living node of the cluster: its address, and its resources as Ray names them (CPU, GPU, memory)."""

    address: str
    resources: Mapping[str, float]


def answers(address: str) -> bool:
    """Whether anything listens at host:port or ray://host:port, which Ray itself takes a minute to say.

    Of "auto", which names no port, Ray finds out at once.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except OSError:
        return False


def prepare_environment() -> None:
    """Set what Ray reads of its environment while it is imported; what is set already stays."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own notes; faults come as exceptions
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def refusal(address: str, error: BaseException) -> RunError:
    """Why a cluster could not be joined, and what to do.

    Not done for the user: a client with a token is let in by a head without tokens, but the two then drop
    each other's actors.
    """
    chain, each = list[str](), error
    while each is not None:
        chain.append(str(each))
        each = each.__cause__ or each.__context__  # type: ignore[assignment]
    if any("AuthToken" in text or "Unauthenticated" in text for text in chain):
        return RunError(
            f"--address {address}: asks for its token, as `ray start` has it; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH unless the token is in ~/.ray/auth_token"
        )
    return RunError(
        f"--address {address}: no Ray cluster can be reached there ({one_line(error)[:200]}); start one with "
        "`ray start --head`, or leave --address and RAY_ADDRESS out"
    )


def join(address: str, patience: float = 0.0, **options: Any) -> None:
    """Connect this process to the Ray at an address.

    Args:
        patience: seconds in which something may begin to listen there.
        options: of `ray.init`.

    Raises:
        RunError: nothing listens or answers there, or it wants a token.
    """
    deadline = time.monotonic() + patience
    while not answers(address):
        if time.monotonic() > deadline:
            raise RunError(f"--address {address}: nothing listens there; start Ray, or correct it")
        time.sleep(1.0)
    prepare_environment()
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # no such cluster, another version: Ray has no class for it  # noqa: BLE001
        raise refusal(address, error) from None


def living_nodes(address: str, at_least: int = 1, patience: float = PATIENCE) -> list[Node]:
    """The living nodes, once there are `at_least`, or those that came within `patience` seconds.

    Raises:
        RunError: nothing answers at the address.
    """
    deadline = time.monotonic() + patience
    join(address, patience)
    import ray

    try:
        while True:
            found = [_node(node) for node in ray.nodes() if node["Alive"]]
            if len(found) >= at_least or time.monotonic() > deadline:
                return sorted(found, key=lambda node: node.address)
            time.sleep(1.0)
    finally:
        ray.shutdown()


def _node(node: Mapping[str, Any]) -> Node:
    shown = {name: value for name, value in node["Resources"].items() if ":" not in name}
    return Node(str(node["NodeManagerAddress"]), shown)

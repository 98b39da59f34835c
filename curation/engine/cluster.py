"""The Ray cluster that a run is given by address: whether it is there, and what it has."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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


def prepare_environment(address: str) -> None:
    """Set what Ray reads of its environment while it is imported; what is set already stays.

    The head of `ray start` accepts none without its token, which a client sends only when it is told to. A
    cluster without tokens takes no notice of one.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own notes; faults come as exceptions
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if address and (given or Path("~/.ray/auth_token").expanduser().is_file()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def living_nodes(address: str, at_least: int = 1, patience: float = PATIENCE) -> list[Node]:
    """The living nodes, once there are `at_least`, or those that came within `patience` seconds.

    Raises:
        RunError: nothing answers at the address.
    """
    deadline = time.monotonic() + patience
    while not answers(address):
        if time.monotonic() > deadline:
            raise RunError(f"--address {address}: nothing listens there; start Ray, or correct it")
        time.sleep(1.0)
    prepare_environment(address)
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:  # Ray has no class of its own for this
        raise RunError(f"--address {address}: no Ray answers there; {one_line(error)}") from None
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

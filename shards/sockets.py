"""Listening on a port, and the address that a browser opens there, for all pages that are served."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address, IPv4 or IPv6; port 0 is any that is free.

    Raises:
        OSError: naming port and host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on port {port} of {host}: {reason}; try another --port") from error


def web_address(host: str, port: int) -> str:
    """`http://HOST:PORT`; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

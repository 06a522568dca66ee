# SPDX-License-Identifier: Apache-2.0
"""What a client is given, before it is used: times, a key, an address."""

from __future__ import annotations

import ipaddress
import re
from typing import Tuple

_MAX_DURATION_S = 1e6  # eleven days; gRPC takes no time without end
_MAX_AGE_S = 1e12  # microseconds of it fit in the message
_SOCKETS = ("unix:", "unix-abstract:")  # schemes without host and port
_HOST_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]+)(:[0-9]+)?")


def check_duration(name: str, seconds: float) -> None:
    """ValueError unless a call may take that long."""
    if not 0 < seconds <= _MAX_DURATION_S:
        raise ValueError(
            f"{name}: got {seconds} s, want a finite time above 0, "
            f"at most {_MAX_DURATION_S:.0f} s"
        )


def check_age(seconds: float) -> None:
    """ValueError unless an observation may be that old."""
    if not 0 <= seconds < _MAX_AGE_S:
        raise ValueError(
            f"age: got {seconds} s, want at least 0, below {_MAX_AGE_S:.0e}"
        )


def credential(api_key: str) -> Tuple[Tuple[str, str], ...]:
    """The metadata that a key travels in; ValueError if no header takes it."""
    key = api_key.strip()  # a file's last line ends in a newline
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key: got characters that are not printable ASCII")
    return (("authorization", f"Api-Key {key}"),) if key else ()


def check_port(address: str) -> None:
    """ValueError for a port that there is not; gRPC takes it modulo 2^16."""
    port = re.search(r":([0-9]+)$", address)
    if port is None or address.startswith(_SOCKETS):
        return
    if not 1 <= int(port[1]) <= 65535:
        raise ValueError(f"address: got {address}, want a port from 1 to 65535")


def is_local(address: str) -> bool:
    """On this machine, where nobody listens between client and server."""
    if address.startswith(_SOCKETS):
        return True
    plain = _HOST_PORT.fullmatch(address)
    if plain is None:
        return False  # a resolver's scheme may name any host
    if plain["host"] == "localhost":
        return True
    try:
        return ipaddress.ip_address(plain["host"].strip("[]")).is_loopback
    except ValueError:
        return False

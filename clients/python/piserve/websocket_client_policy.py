# SPDX-License-Identifier: Apache-2.0
"""openpi's client class, over gRPC: a robot changes one import.

    from openpi_client import websocket_client_policy    # before
    from piserve import websocket_client_policy          # after

    policy = websocket_client_policy.WebsocketClientPolicy(host, port)
    action_chunk = policy.infer(observation)["actions"]

Source: openpi openpi_client/websocket_client_policy.py.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Dict, Mapping, NamedTuple, Optional
from urllib.parse import urlsplit

import grpc
from google.protobuf import struct_pb2

from piserve.arguments import check_duration
from piserve.client import PolicyClient
from piserve.errors import PolicyUnavailable

_PORT = 50051
_ANYWHERE = "0.0.0.0"  # openpi's default: this machine
_LOG_EVERY_S = 5.0

_log = logging.getLogger(__name__)


class WebsocketClientPolicy:
    """Takes the observations and gives the answers of openpi's class.

    host     a host; or as a URL "ws://host:port/policy", whose path names the
             policy of a server with several ("wss": over TLS).
    port     the server's gRPC port; None: the URL's, else 50051.
    api_key  as openpi's. Crosses a network over TLS only: ValueError otherwise.

    What openpi's class has not:

    policy   name of the policy; empty: the URL's, or the only one.
    wait     seconds to wait for the server to be up and warm; then
             PolicyUnavailable.
    options  PolicyClient's: timeout, robot, max_age, tls, ...

    Every call has a deadline and survives a restart of the server. Errors are
    PolicyClient's, which are RuntimeErrors as openpi's are.
    """

    def __init__(
        self,
        host: str = _ANYWHERE,
        port: Optional[int] = None,
        api_key: Optional[str] = None,
        *,
        policy: str = "",
        wait: float = 600.0,
        **options: Any,
    ) -> None:
        check_duration("wait", wait)
        place = _place_of(host, port)
        if place.tls and options.get("tls") is None:
            options["tls"] = grpc.ssl_channel_credentials()
        self._client = PolicyClient(
            place.address,
            policy=policy or place.policy,
            api_key=api_key,
            **options,
        )
        self._previous_ms: Optional[float] = None
        try:
            self._wait_for_server(place.address, wait)
            info = self._client.policy_info()
        except BaseException:
            self._client.close()
            raise
        self._metadata = _plain(info.metadata)

    def get_server_metadata(self) -> Dict[str, Any]:
        """What the policy says of itself, e.g. ALOHA's reset_pose."""
        return self._metadata

    def infer(self, obs: Mapping[str, Any]) -> Dict[str, Any]:
        """The action chunk for one observation, as openpi's server answers.

        actions        float64 [horizon, action_dim]
        policy_timing  infer_ms: the model alone
        server_timing  infer_ms: all of the server; from the second answer on
                       also prev_total_ms: the call before, the network included
        """
        reply = self._client.infer(obs)
        timing = {"infer_ms": reply["server_timing"]["infer_ms"]}
        if self._previous_ms is not None:
            timing["prev_total_ms"] = self._previous_ms
        self._previous_ms = reply["client_timing"]["infer_ms"]
        return {
            "actions": reply["actions"],
            "policy_timing": reply["policy_timing"],
            "server_timing": timing,
        }

    def reset(self) -> None:
        """Nothing to do: the server keeps nothing between calls."""

    def close(self) -> None:
        """Ends the connection, which otherwise lasts as long as the object."""
        self._client.close()

    def _wait_for_server(self, address: str, wait: float) -> None:
        _log.info("Waiting for server at %s...", address)
        give_up = time.monotonic() + wait
        while True:
            left = give_up - time.monotonic()
            try:
                self._client.wait_until_ready(min(_LOG_EVERY_S, max(left, 0.1)))
                return
            except PolicyUnavailable as error:
                if left <= _LOG_EVERY_S:
                    raise
                _log.info("Still waiting for server: %s", error)


class _Place(NamedTuple):
    address: str
    policy: str
    tls: bool


def _place_of(host: str, port: Optional[int]) -> _Place:
    """Where a host or URL and a port point to, as openpi joins them."""
    if not host.startswith(("ws://", "wss://")):
        host = f"ws://{host}"
    parts = urlsplit(host)
    name = parts.hostname or _ANYWHERE
    if name == _ANYWHERE:
        name = "127.0.0.1"
    elif ":" in name:
        name = f"[{name}]"
    return _Place(
        address=f"{name}:{port or parts.port or _PORT}",
        policy=parts.path.strip("/"),
        tls=parts.scheme == "wss",
    )


def _plain(struct: struct_pb2.Struct) -> Dict[str, Any]:
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)

# SPDX-License-Identifier: Apache-2.0
"""What tests of the websocket front send, and how they connect."""

import numpy as np
import websockets.sync.client
from openpi_client.websocket_client_policy import WebsocketClientPolicy

# For config_text: this wire names no deadline, and the cores may be busy.
SLOW = {
    "predicted_ms: 2000": "predicted_ms: 30000 default_deadline_ms: 30000",
}
ON = "--websocket_address=127.0.0.1:0"
RANDOM = np.random.default_rng(7)


def image(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def libero(state=None):
    return {
        "observation/image": image(256, 256, 3),
        "observation/wrist_image": image(256, 256, 3),
        "observation/state": RANDOM.random(8) if state is None else state,
        "prompt": "do something",
    }


def droid():
    return {
        "observation/exterior_image_1_left": image(180, 320, 3),
        "observation/wrist_image_left": image(224, 224, 3),
        "observation/joint_position": RANDOM.random(7),
        "observation/gripper_position": RANDOM.random(1),
        "prompt": "do something",
    }


def aloha():
    return {
        "state": np.ones(14),
        "images": {
            name: image(3, 224, 224)
            for name in (
                "cam_high",
                "cam_low",
                "cam_left_wrist",
                "cam_right_wrist",
            )
        },
        "prompt": "do something",
    }


def connect(server, **kwargs):
    """As openpi's examples connect: a host and a port."""
    host, port = server.addresses.websocket.split(":")
    return WebsocketClientPolicy(host, int(port), **kwargs)


def connect_raw(server, timeout=10):
    """A connection without openpi's client, the metadata read."""
    socket = websockets.sync.client.connect(
        f"ws://{server.addresses.websocket}", compression=None, max_size=None
    )
    socket.recv(timeout=timeout)
    return socket

# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/tabletop anew: what the float32 reference answered in a
few episodes that succeed, as the server records it.

Usage: record_tabletop.py OUT_FOLDER, with PYTHONPATH set to this folder,
clients/python and deploy/demo.
"""

import pathlib
import shutil
import sys
import tempfile

import images
from piserve import PolicyClient
from piserve.worlds.tabletop import run_episode
from piserve.worlds.tabletop.evaluation import Seeded
from serving import config_text, serving, write_config

# Short ones, a block of each colour, in which no action hangs on a rounding
# (tests/golden/MANIFEST.md).
EPISODES = {"pi0_tabletop": (72, 51, 26), "pi05_tabletop": (17, 4, 71)}
CAMERAS = ("observation/image", "observation/wrist_image")


class WithPngs:
    """A client that sends pictures as PNG files: the same pixels, smaller."""

    def __init__(self, client):
        self._client = client

    def infer(self, obs, **options):
        files = {name: images.png(obs[name], optimize=True) for name in CAMERAS}
        return self._client.infer({**obs, **files}, **options)


def run(server, policy, seed):
    with PolicyClient(
        server.addresses.public, policy=policy, timeout=30
    ) as client:
        result = run_episode(Seeded(WithPngs(client), seed), seed)
    if not result.success:
        sys.exit(f"{policy}, seed {seed}: want an episode that succeeds")
    return len(result.infer_s)


def main():
    out = pathlib.Path(sys.argv[1])
    names = []
    with tempfile.TemporaryDirectory() as folder:
        flag = write_config(pathlib.Path(folder), config_text("tabletop"))
        records = pathlib.Path(folder) / "records"
        with serving(flag, f"--record={records}") as server:
            for policy, seeds in EPISODES.items():
                for seed in seeds:
                    calls = run(server, policy, seed)
                    names += [
                        f"{policy}/{seed}_{call:02}.rec"
                        for call in range(calls)
                    ]
        files = sorted(records.glob("*.rec"))  # in the order of the calls
        for file, name in zip(files, names, strict=True):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, out / name)
    print(f"{len(names)} recordings in {out}")


if __name__ == "__main__":
    main()

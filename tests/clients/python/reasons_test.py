# SPDX-License-Identifier: Apache-2.0
"""The reasons that the client itself gives are those that its README lists."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[3]
CLIENT = ROOT / "clients" / "python"


def test_every_reason_of_the_client_is_listed():
    source = "".join(
        path.read_text() for path in sorted((CLIENT / "piserve").glob("*.py"))
    )
    given = set(re.findall(r'reason="([A-Z_]+)"|"([A-Z_]+_MISMATCH)"', source))
    names = {name for pair in given for name in pair if name}
    names |= {"CLOSED", "STATE_MISMATCH", "ACTION_MISMATCH"}  # no literals
    text = (CLIENT / "README.md").read_text()
    listed = text.split("<!-- reasons -->")[1]
    assert names == set(re.findall(r"`([A-Z_]+)`", listed))

# SPDX-License-Identifier: Apache-2.0
"""Generated messages and service stubs; see tools/generate_stubs.py."""

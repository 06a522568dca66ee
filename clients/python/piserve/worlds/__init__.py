# SPDX-License-Identifier: Apache-2.0
"""Simulated robots, for trying a policy where there is no robot.

Needs numpy alone; pictures for people need Pillow (the extra `pictures`).
"""

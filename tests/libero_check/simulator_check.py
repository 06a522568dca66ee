# SPDX-License-Identifier: Apache-2.0
"""What holds of LIBERO itself. Run by `make libero-check`, not `make test`."""

import json

import numpy as np
import pytest
from piserve.libero.command import main
from piserve.libero.controls import serve
from piserve.libero.protocol import (
    MAX_STEPS,
    Protocol,
    request,
    run_episode,
)
from piserve.libero.simulator import (
    CAMERAS,
    LiberoEnvironment,
    tasks_of,
    trials_of,
)

SUITE, SEED = "libero_object", 7
ACTIONS = np.random.default_rng(1).uniform(-0.6, 0.6, (15, 7))


class Watched(LiberoEnvironment):
    """Notes the physics after each step, and counts the pictures rendered."""

    def __init__(self, render):
        super().__init__(SUITE, 0, SEED, render)
        self.states, self.rendered = [], 0

    def reset(self, trial):
        super().reset(trial)
        self.states = [self.physics()]
        self.rendered = 0
        for name in CAMERAS:
            observable = self._env.env._observables[name]
            observable._sensor = self._counted(observable._sensor)

    def step(self, action, *, observed):
        done = super().step(action, observed=observed)
        self.states.append(self.physics())
        return done

    def _counted(self, sensor):
        def counted(cache):
            image = sensor(cache)
            self.rendered += bool(image.any())
            return image

        counted.__modality__ = sensor.__modality__
        return counted


def play(environment, trial=0):
    """The observations that are sent while ACTIONS are carried out."""
    sent = []

    def infer(obs):
        sent.append(obs)
        first = 5 * (len(sent) - 1)
        return {"actions": ACTIONS[first : first + 5]}

    protocol = Protocol(max_steps=len(ACTIONS))
    run_episode(environment, infer, trial, "p", protocol)
    return sent


@pytest.fixture(scope="module")
def played():
    """{render: (observations, physics, pictures rendered)}, and a repetition.

    One simulator at a time: each takes 1.5 GB.
    """
    found = {}
    for render in ("all", "sent"):
        environment = Watched(render)
        sent = play(environment)
        found[render] = sent, environment.states, environment.rendered
        if render == "sent":
            play(environment, trial=1)
            again = play(environment)
            found["again"] = again, environment.states, environment.rendered
        environment.close()
    return found


def assert_same_bits(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_rendering_only_what_is_sent_changes_no_bit(played):
    assert_same_bits(played["all"], played["sent"])


def test_only_what_is_sent_is_rendered(played):
    calls, cameras = len(ACTIONS) // 5, len(CAMERAS)
    assert len(played["sent"][0]) == calls
    assert played["sent"][2] == calls * cameras
    steps = 10 + len(ACTIONS)
    assert played["all"][2] == steps * cameras


def test_a_trial_is_the_same_after_another_one(played):
    assert_same_bits(played["sent"], played["again"])


def test_observations_are_what_openpi_sends(played):
    first = played["sent"][0][0]
    for key in ("observation/image", "observation/wrist_image"):
        assert first[key].shape == (256, 256, 3)
        assert first[key].dtype == np.uint8
        assert first[key].std() > 10
    assert first["observation/state"].shape == (8,)
    assert first["observation/state"].dtype == np.float64


@pytest.mark.parametrize("suite", sorted(MAX_STEPS))
def test_suites_have_their_tasks_and_50_start_states(suite):
    tasks = tasks_of(suite)
    assert len(tasks) == (90 if suite == "libero_90" else 10)
    assert all(task.prompt for task in tasks)
    assert trials_of(suite, 0) == 50


def evaluate(control, folder, *options):
    """The report of the command against a control's server."""
    server, port = serve(control, "127.0.0.1:0")
    try:
        status = main(
            [
                *("--server", f"127.0.0.1:{port}", "--out", str(folder)),
                *("--suite", SUITE, "--tasks", "0", *options),
            ]
        )
    finally:
        server.stop(None).wait()
    assert status == 0
    return json.loads((folder / "report.json").read_text())


def test_the_expert_succeeds(tmp_path):
    report = evaluate("expert", tmp_path, "--trials", "2", "--films")
    assert (report["success"], report["failure"]) == (2, 0)
    assert report["privileged"] is True
    assert report["infrastructure"] == 0
    assert len(list((tmp_path / "films").iterdir())) == 2


def test_zero_actions_fail(tmp_path):
    report = evaluate("zero", tmp_path, "--trials", "1")
    assert (report["success"], report["failure"]) == (0, 1)
    assert report["per_episode"][0]["steps"] == MAX_STEPS[SUITE]
    assert report["privileged"] is False


def test_what_is_sent_is_what_libero_shows_turned():
    environment = LiberoEnvironment(SUITE, 0, SEED)
    environment.reset(0)
    environment.step(np.zeros(7), observed=True)
    seen = environment._env.env._get_observations()
    obs = request(environment.observe(), "p")
    turned = seen["agentview_image"][::-1, ::-1]
    np.testing.assert_array_equal(obs["observation/image"], turned)
    environment.close()

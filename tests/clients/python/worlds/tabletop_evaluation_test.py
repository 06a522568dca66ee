# SPDX-License-Identifier: Apache-2.0
import json
import threading

import numpy as np
import pytest
from piserve.worlds.tabletop import (
    FAULTS,
    EpisodeResult,
    Evaluation,
    Expert,
    Tabletop,
    alike,
    evaluate,
)
from piserve.worlds.tabletop.__main__ import main
from piserve.worlds.tabletop.evaluation import Seeded


class Recorder:
    """Notes what it is sent; answers its call's number, in thousandths."""

    def __init__(self):
        self.sent = []

    def infer(self, obs, *, seed):
        self.sent.append((obs, seed))
        return {"actions": np.full((5, 7), 0.001 * len(self.sent))}


def short_world():
    return Tabletop(image_size=8, max_steps=20)


def result(seed, success):
    empty = np.zeros((1, 7))
    return EpisodeResult(seed, "", "red", success, 1, empty, empty, [0.01])


def evaluation(*successes):
    return Evaluation([result(i, s) for i, s in enumerate(successes)], 1.0)


def test_noise_follows_from_the_seed_and_the_call():
    def seeds_of(episode):
        client = Recorder()
        policy = Seeded(client, episode)
        for _ in range(3):
            policy.infer({})
        return [seed for _, seed in client.sent]

    assert seeds_of(4) == seeds_of(4)
    assert len({*seeds_of(4), *seeds_of(5)}) == 6


def test_each_seed_is_run_once_and_results_keep_their_order():
    clients = [Recorder() for _ in range(3)]
    seen = []
    found = evaluate(
        clients, range(7), new_world=short_world, on_result=seen.append
    )
    assert [r.seed for r in found.results] == list(range(7))
    assert sorted(r.seed for r in seen) == list(range(7))
    assert sum(len(client.sent) for client in clients) == 7 * 4


def test_robots_at_once_get_what_one_gets():
    def actions(robots):
        clients = [FixedBySeed() for _ in range(robots)]
        found = evaluate(clients, range(4), new_world=short_world)
        return [r.actions for r in found.results]

    for one, other in zip(actions(1), actions(4), strict=True):
        np.testing.assert_array_equal(one, other)


class FixedBySeed:
    def infer(self, obs, *, seed):
        rng = np.random.default_rng(seed)
        return {"actions": rng.uniform(-1, 1, (5, 7))}


def test_swapped_cameras_change_places():
    client = Recorder()
    evaluate(
        [client], [3], fault="swapped-cameras", new_world=lambda: one_call()
    )
    obs = client.sent[0][0]
    plain = Tabletop(image_size=8).reset(3)
    np.testing.assert_array_equal(
        obs["observation/image"], plain["observation/wrist_image"]
    )
    np.testing.assert_array_equal(
        obs["observation/wrist_image"], plain["observation/image"]
    )


def one_call():
    return Tabletop(image_size=8, max_steps=5)


def test_a_stale_chunk_is_that_of_the_call_before():
    found = evaluate(
        [Recorder()], [3], fault="stale-chunk", new_world=short_world
    )
    chunks = found.results[0].actions[::5, 0]
    np.testing.assert_allclose(chunks, [0.001, 0.001, 0.002, 0.003])


def test_a_neighbours_row_answers_another_episode():
    client = Recorder()
    evaluate([client], [3], fault="neighbours-row", new_world=one_call)
    own = Tabletop().reset(3)["observation/state"]
    assert not np.array_equal(client.sent[0][0]["observation/state"], own)


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="stale-chunk"):
        evaluate([Recorder()], [0], fault="gremlins")
    assert len(FAULTS) == 3


def test_what_an_episode_raises_reaches_the_caller_and_ends_the_rest():
    class Broken:
        def infer(self, obs, *, seed):
            raise ConnectionError("gone")

    before = threading.active_count()
    with pytest.raises(ConnectionError, match="gone"):
        evaluate([Broken(), Broken()], range(50), new_world=short_world)
    assert threading.active_count() == before


def test_the_interval_is_wilsons():
    low, high = evaluation(*[True] * 9, False).interval
    assert low == pytest.approx(0.5958, abs=1e-3)
    assert high == pytest.approx(0.9821, abs=1e-3)
    assert evaluation(True, True).interval[1] == 1.0


def test_alike_counts_equal_ends_of_equal_seeds():
    a, b = evaluation(True, False, True), evaluation(True, True, True)
    assert alike(a, b) == 2
    assert alike(a, a) == 3


def test_the_record_names_every_episode(tmp_path):
    path = tmp_path / "expert.json"
    size = ["--image-size", "8"]
    assert main(["--episodes", "2", "--json", str(path), *size]) == 0
    record = json.loads(path.read_text())
    assert record["policy"] == "expert"
    assert record["successes"] == 2
    assert [e["seed"] for e in record["per_episode"]] == [0, 1]


def test_the_expert_is_evaluated_like_a_policy():
    world = Tabletop(image_size=8)

    class Client:
        def infer(self, obs, *, seed):
            return Expert(world, horizon=10).infer(obs)

    found = evaluate([Client()], range(3), new_world=lambda: world)
    assert found.wins == 3


@pytest.mark.parametrize(
    "options",
    [
        ["--robots", "2"],
        ["--policy", "x"],
        ["--fault", "stale-chunk"],
        ["--server", "127.0.0.1:1", "--robots", "2", "--gif", "a.gif"],
    ],
)
def test_options_that_make_no_sense_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert "want --robots 1" in (err := capsys.readouterr().err) or (
        "need --server" in err
    )


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("--seed", "-1", 0),
        ("--image-size", "0", 8),
        ("--image-size", "7", 8),
        ("--episodes", "0", 1),
        ("--robots", "0", 1),
    ],
)
def test_a_number_that_is_too_small_is_refused(option, value, least, capsys):
    with pytest.raises(SystemExit) as caught:
        main([option, value])
    assert caught.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{option}: got {value}, want at least {least}" in last


@pytest.mark.parametrize("option", ["--json", "--gif", "--png"])
def test_a_file_that_cannot_be_written_is_told_before_the_run(
    option, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("piserve.worlds.tabletop.__main__._watch_expert", None)
    assert main([option, str(tmp_path / "no" / "file")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("cannot write: ") and len(err.splitlines()) == 1


def test_a_run_that_fails_leaves_no_file(tmp_path, capsys):
    path = tmp_path / "result.json"
    assert main(["--server", "127.0.0.1:1", "--json", str(path)]) == 1
    assert not path.exists()


def test_a_missing_server_is_one_line(capsys):
    options = ["--server", "127.0.0.1:1", "--episodes", "1"]
    assert main(options) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1

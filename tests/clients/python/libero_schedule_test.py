# SPDX-License-Identifier: Apache-2.0
import pytest
from piserve.libero.schedule import (
    FAILURE,
    INFRASTRUCTURE,
    SUCCESS,
    Episode,
    EpisodeRecord,
    Schedule,
)


def episodes(tasks, trials):
    return [Episode(t, i) for t in range(tasks) for i in range(trials)]


def record(task, trial, outcome):
    return EpisodeRecord(task, trial, outcome, 1, 0.5, [1.0], [])


def drain(schedule, task=None):
    taken = []
    while (episode := schedule.take(task)) is not None:
        taken.append(episode)
        task = episode.task
        schedule.ended(episode)
    return taken


def test_each_episode_is_taken_once_and_tasks_stay_together():
    assert drain(Schedule(episodes(3, 4))) == episodes(3, 4)


def test_a_process_stays_with_the_task_that_it_has_loaded():
    schedule = Schedule(episodes(2, 2))
    assert schedule.take(1) == (1, 0)
    assert schedule.take(1) == (1, 1)
    assert schedule.take(1) == (0, 0)


def test_a_process_without_a_task_avoids_those_of_others():
    schedule = Schedule(episodes(3, 2))
    assert schedule.take(None, [0]).task == 1
    assert schedule.take(None, [0, 1]).task == 2


def test_the_last_task_is_shared():
    schedule = Schedule(episodes(1, 2))
    assert schedule.take(None) == (0, 0)
    assert schedule.take(None, [0]) == (0, 1)


def test_an_episode_that_broke_is_tried_again_at_once():
    schedule = Schedule(episodes(1, 2), attempts=3)
    first = schedule.take(None)
    assert schedule.broke(first, "a") is None
    assert schedule.take(0) == first
    assert schedule.ended(first) == ["a"]


def test_an_episode_is_lost_after_its_attempts():
    schedule = Schedule(episodes(1, 1), attempts=3)
    for error in "ab":
        assert schedule.broke(schedule.take(0), error) is None
    assert schedule.broke(schedule.take(0), "c") == ["a", "b", "c"]
    assert schedule.take(0) is None


def test_all_is_given_up_when_nothing_comes_to_an_end():
    schedule = Schedule(episodes(1, 9), attempts=1, patience=2)
    schedule.broke(schedule.take(0), "a")
    assert not schedule.given_up
    schedule.broke(schedule.take(0), "a")
    assert schedule.given_up
    assert schedule.take(0) is None


def test_an_end_restores_patience():
    schedule = Schedule(episodes(1, 9), attempts=1, patience=2)
    schedule.broke(schedule.take(0), "a")
    schedule.ended(schedule.take(0))
    schedule.broke(schedule.take(0), "a")
    assert not schedule.given_up


def test_what_was_decided_is_not_run_again_and_what_was_lost_is():
    records = [
        record(0, 0, SUCCESS),
        record(0, 1, FAILURE),
        record(0, 2, INFRASTRUCTURE),
    ]
    left = Schedule.unfinished(episodes(1, 4), records)
    assert left == [(0, 2), (0, 3)]


def test_an_episode_lost_once_and_decided_later_is_decided():
    records = [record(0, 0, INFRASTRUCTURE), record(0, 0, FAILURE)]
    assert Schedule.unfinished(episodes(1, 1), records) == []


def test_a_record_survives_json():
    one = EpisodeRecord(1, 2, FAILURE, 3, 4.5, [6.25], ["why"])
    assert EpisodeRecord.of_json(one.as_json()) == one


def test_no_attempts_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Schedule([], attempts=0)

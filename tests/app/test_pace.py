"""Progress and time left, by a clock that the test turns."""

from __future__ import annotations

from openlumiere.app.workers.pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_left_is_known_of_measured_stages_only() -> None:
    clock, known = Clock(), {}  # type: ignore[var-annotated]
    pace = Pace({"denoise": 4, "sharpen": 2}, "model", known, clock=clock)
    assert (pace.progress, pace.seconds_left) == (2, None)
    pace.tell("read", 0, 1)
    pace.tell("denoise", 0, 4)
    clock.now += 6
    pace.tell("denoise", 2, 4)
    assert known == {("model", "denoise"): 3.0}
    assert pace.seconds_left is None  # nobody knows how long a step of the second stage takes
    assert 30 < pace.progress < 40  # two of six
    clock.now += 6
    pace.tell("denoise", 4, 4)
    pace.tell("sharpen", 0, 2)
    clock.now += 10
    pace.tell("sharpen", 1, 2)
    assert pace.seconds_left == 10.0
    pace.tell("sharpen", 2, 2)
    assert (pace.progress, pace.seconds_left) == (96, 0)


def test_the_next_clip_of_a_kind_is_told_from_its_first_moment() -> None:
    known = {("model", "denoise"): 3.0, ("model", "sharpen"): 10.0}
    assert Pace({"denoise": 4, "sharpen": 2}, "model", known, clock=Clock()).seconds_left == 32.0
    assert Pace({"denoise": 4, "sharpen": 2}, "another", known, clock=Clock()).seconds_left is None


def test_progress_weighs_stages_by_their_times() -> None:
    known = {("model", "denoise"): 1.0, ("model", "sharpen"): 9.0}
    pace = Pace({"denoise": 4, "sharpen": 4}, "model", known, clock=Clock())
    pace.tell("sharpen", 0, 4)
    before = pace.progress
    pace.tell("denoise", 0, 4)
    clock_free = Pace({"denoise": 4, "sharpen": 4}, "model", dict(known), clock=Clock())
    clock_free._done["denoise"] = 4
    assert before == 2
    assert 10 <= clock_free.progress <= 12  # 4 of 40 seconds


def test_what_needs_no_steps_has_only_begun() -> None:
    assert Pace({}, "model", {}).progress == 2
    assert Pace({}, "model", {}).seconds_left == 0

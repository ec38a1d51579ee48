"""A batch in this process: what is done is skipped, what fails is told and stops nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batch_tools import Notes, Unloadable
from openlumiere.batch.cluster import Cluster, connected, last_line, share
from openlumiere.batch.work import Outcome, run
from openlumiere.errors import LumiereError


def test_what_is_done_is_skipped_and_what_fails_stops_nothing(tmp_path: Path) -> None:
    work = Notes(tmp_path, broken=(2,))
    work.path(1).write_text("before")
    started: list[int] = []
    found = list(run(range(4), work, starting=started.append))
    assert [(each.index, each.name, each.error) for each in found] == [
        (0, "00000", ""), (2, "00002", "2 is broken"), (3, "00003", ""),
    ]  # fmt: skip
    assert started == [0, 2, 3]
    assert work.made() == {0: "0", 1: "before", 3: "9"}
    assert [each.name for each in run(range(4), Notes(tmp_path))] == ["00002"]  # the next run tries it again


def test_nothing_is_loaded_where_all_is_done(tmp_path: Path) -> None:
    work = Unloadable(tmp_path)
    work.path(0).touch()
    assert list(run([0], work)) == []
    with pytest.raises(LumiereError, match="emoji-giant"):
        next(iter(run([1], work)))


def test_failures_are_raised_where_nothing_goes_on_without(tmp_path: Path) -> None:
    outcomes = run(range(4), Notes(tmp_path, broken=(1,)), keep_going=False)
    assert next(outcomes) == Outcome(0, "00000", next(iter(Notes(tmp_path).processes(0))))
    with pytest.raises(ValueError, match="1 is broken"):
        next(outcomes)


def test_a_full_disk_ends_a_batch(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space"):
        list(run(range(4), Notes(tmp_path, full=(1,))))
    assert Notes(tmp_path).made() == {0: "0"}


@pytest.mark.parametrize(
    ("machines", "workers", "device", "expected"),
    [
        ([{"CPU": 2.0}], None, "auto", Cluster(1, cpus=2)),
        ([{"CPU": 2.0}], 2, "auto", Cluster(2, cpus=1)),
        ([{"CPU": 2.0}], 5, "auto", Cluster(5, cpus=1)),
        ([{}, {"CPU": 8.0}, {"CPU": 4.0}], None, "cpu", Cluster(2, cpus=4)),
        ([{"CPU": 8.0}, {"CPU": 8.0}], 3, "auto", Cluster(3, cpus=4)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}], None, "auto", Cluster(6, cpus=1, gpus=1)),
        ([{"CPU": 8.0, "GPU": 2.0}], None, "cpu", Cluster(1, cpus=8)),
        ([{"CPU": 8.0, "GPU": 2.0}], 1, "cuda", Cluster(1, cpus=1, gpus=1)),
    ],
)
def test_how_machines_are_shared(
    machines: list[dict[str, float]], workers: int | None, device: str, expected: Cluster
) -> None:
    assert share(machines, workers=workers, device=device) == expected


def test_clusters_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LumiereError, match="no GPU"):
        share([{"CPU": 2}], device="cuda")
    with pytest.raises(LumiereError, match="no CPU"):
        share([{}])
    with pytest.raises(LumiereError, match="ray job submit"), connected("ray://head:10001"):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LumiereError, match=r"ray is not installed; .*openlumiere\[ray\]"), connected("local"):
        pass


def test_errors_of_other_processes_in_one_line() -> None:
    told = "The actor died because of an error raised in its creation task, ray::Maker()\n  File ...\n"
    assert last_line(RuntimeError(f"{told}openlumiere.errors.LumiereError: no such model: x; choose another\n")) == (
        "no such model: x; choose another"
    )
    assert last_line(RuntimeError("worn out")) == "worn out"

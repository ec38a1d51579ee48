"""Batches on a real cluster of several machines' processes: nothing lost, nothing doubled, bytes as without it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from batch_tools import Notes, Unloadable, load_squares
from openlumiere.batch.cluster import Cluster, connected
from openlumiere.batch.work import run
from openlumiere.cli import main
from openlumiere.comparison.entries import Entry
from openlumiere.comparison.making import make_clips
from openlumiere.comparison.plan import make_plan, read_record
from openlumiere.comparison.prompts import read_shots
from openlumiere.errors import LumiereError
from openlumiere.evaluation.clips import ClipMaker, Job
from openlumiere.evaluation.features.cache import Extraction, features_of
from openlumiere.evaluation.features.clip_sets import list_clips
from openlumiere.evaluation.features.networks import FEATURES, find_features
from openlumiere.files import PARTIAL, sha256
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.find import load_backend
from openlumiere.generation.clip_work import ClipWork
from openlumiere.generation.requests import GenerateRequest
from openlumiere.storage import Storage
from tiny_features import LikeI3D, torchscript

pytestmark = pytest.mark.slow

STORE = 80 * 2**20
COUNT = 120  # benchmarks/ray_batch.py makes 500
FAST = ("--frames", "4", "--steps", "1", "--seed", "1", "--device", "cpu", "--no-mark")


def patiently(start: Callable[[], Any]) -> Any:
    """Start a machine of a cluster: Ray gives it half a minute, which is little where all cores are busy."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:
            last = error
    raise last


class Machines:
    """A cluster: a head without CPUs, where batches are started, and machines with one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Nodes

        head = {**self._node(), "num_cpus": 0}
        self.nodes = patiently(lambda: Nodes(initialize_head=True, head_node_args=head))
        self.address = str(self.nodes.address)
        self.workers: list[Any] = []

    def _node(self) -> dict[str, Any]:
        return {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}

    def fill(self, count: int) -> None:
        """Let there be so many machines beside the head."""
        while len(self.workers) < count:
            self.workers.append(patiently(lambda: self.nodes.add_node(**self._node())))
        self.nodes.wait_for_nodes(timeout=300)

    def kill(self) -> None:
        """Kill a machine, with all its processes."""
        self.nodes.remove_node(self.workers.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on the loopback address
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")  # with Ray's own, 15, nothing is left for them on a busy machine
        started = Machines()
        started.fill(2)
        yield started
        started.nodes.shutdown()


@pytest.fixture
def two(machines: Machines) -> Machines:
    """The cluster, with two machines to compute on."""
    machines.fill(2)
    return machines


def test_a_machine_dies_in_the_middle(two: Machines, tmp_path: Path) -> None:
    work = Notes(tmp_path, seconds=0.02, broken=(7,), broken_once=(11,))
    done_before = (3, 4)
    for item in done_before:
        work.path(item).write_text("before")
    said: list[str] = []
    outcomes = []
    with connected(two.address) as cluster:
        assert cluster == Cluster(2, cpus=1)
        for outcome in run(range(COUNT), work, cluster, report=said.append):
            outcomes.append(outcome)
            if len(outcomes) == COUNT // 4:
                two.kill()
    assert work.made() == {n: "before" if n in done_before else str(n * n) for n in range(COUNT) if n != 7}
    assert Counter(each.index for each in outcomes) == Counter(set(range(COUNT)) - set(done_before))
    assert [(each.name, each.error) for each in outcomes if each.error] == [("00007", "7 is broken")]
    assert len({each.value for each in outcomes} - {None}) >= 2
    assert len(set(work.processes(7))) == len(work.processes(7)) == 2  # tried again by another process
    assert len(set(work.processes(11))) == 2
    assert len(said) == 1
    assert "tried again by other processes" in said[0]
    # Nothing was made twice but what was in the hands of those who died.
    twice = [n for n in range(COUNT) if n not in (7, 11, *done_before) and len(work.processes(n)) > 1]
    assert len(twice) <= 2
    assert not list(tmp_path.glob(f"*{PARTIAL}"))


def test_what_kills_its_process_is_told_and_takes_nothing_with_it(two: Machines, tmp_path: Path) -> None:
    work = Notes(tmp_path, deadly=(5,))
    with connected(two.address) as cluster:
        outcomes = list(run(range(12), work, cluster))
    assert set(work.made()) == set(range(12)) - {5}
    assert {each.name: each.error.partition(",")[0] for each in outcomes if each.error} == {
        "00005": "the process that made it died"
    }


def test_what_ends_a_batch_is_told_in_one_line(two: Machines, tmp_path: Path) -> None:
    with connected(two.address, workers=1) as cluster:
        with pytest.raises(LumiereError, match="no such model: emoji-giant; choose another"):
            list(run(range(4), Unloadable(tmp_path), cluster))
        with pytest.raises(LumiereError, match="no space") as raised:
            list(run(range(40), Notes(tmp_path / "full", full=(1,)), cluster))
        assert isinstance(raised.value.__cause__, OSError)
        with pytest.raises(LumiereError, match="1 could not be made, such as 00003: 3 is broken"):
            list(run(range(4), Notes(tmp_path / "broken", broken=(3,)), cluster, keep_going=False))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.saved(tiny.conditioned(), tmp_path_factory.mktemp("models") / "tiny"))


def test_clips_have_the_bytes_that_they_have_without(
    two: Machines, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"a cat number {n}" for n in range(59)] + ['{"prompt": "a dog", "output": "dogs/one.webp", "seed": 5}']
    Path("prompts.txt").write_text("\n".join(lines), encoding="utf-8")
    words = ["generate", "--prompts", "prompts.txt", "--model", model, *FAST]
    assert main([*words, "-o", "alone"]) == 0
    capfd.readouterr()
    on_ray = [*words, "--ray", two.address, "--workers", "2", "-o", "together"]
    assert main(on_ray) == 0
    told = capfd.readouterr()
    assert "60 clips to make, 0 already there and skipped" in told.out
    assert "on Ray: 2 processes, 1 CPU core each" in told.out
    assert "60/60" in told.err
    assert contents("together") == contents("alone")
    assert len(contents("alone")) == 60
    Path("together/00003-a-cat-number-2.mp4").unlink()
    ages = {path: path.stat().st_mtime_ns for path in Path("together").rglob("*.*")}
    storage = Storage(f"shelf://{tmp_path}/together")
    loader = partial(load_backend, model, Loading(device="cpu"))
    with connected(two.address, workers=2) as cluster:  # at an address, from which two clips are missing
        requests = [
            GenerateRequest(prompt=f"a cat number {n}", seed=n + 1, num_inference_steps=1, num_frames=4, output=name)
            for n, name in ((2, "00003-a-cat-number-2.mp4"), (4, "00005-a-cat-number-4.mp4"), (2, "more/again.mp4"))
        ]
        outcomes = list(run(requests, ClipWork(loader, storage), cluster))
    assert sorted(each.name for each in outcomes) == ["00003-a-cat-number-2.mp4", "more/again.mp4"]
    found = contents("together")
    assert found.pop("more/again.mp4") == found["00003-a-cat-number-2.mp4"]
    assert found == contents("alone")
    assert {path: path.stat().st_mtime_ns for path in ages} == ages


def test_a_comparison_s_clips(two: Machines, model: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red ball\ntwo blue kites\n", encoding="utf-8")
    shots = read_shots(tmp_path / "prompts.txt", seeds=2)
    entry = Entry(name="A", model=model, num_frames=4, num_inference_steps=1)
    plans = {name: make_plan(tmp_path / name, [entry], shots) for name in ("alone", "together")}
    loading = Loading(device="cpu")
    assert make_clips(plans["alone"], loading, report=print, progress=False) == []
    said: list[str] = []
    with connected(two.address, workers=1) as cluster:
        made = make_clips(plans["together"], loading, cluster=cluster, report=said.append, progress=False)
    assert made == []
    assert said[0] == "1 of 1, A: 4 clips to make, 0 already there and skipped"
    assert contents(plans["together"].folder / "a") == contents(plans["alone"].folder / "a")
    assert read_record(plans["together"].record(entry, plans["together"].shots[0]))["seconds"] > 0


def test_clips_and_features_of_an_evaluation(two: Machines, tmp_path: Path) -> None:
    jobs = [Job(f"{n:05d}", f"a square {n}", n) for n in range(40)]
    with connected(two.address, workers=1) as cluster:
        maker = ClipMaker(None, tmp_path / "clips")
        maker.make(jobs, batch=16, cluster=cluster, load_sample=load_squares, progress=False)
        alone = ClipMaker(load_squares(), tmp_path / "alone")
        alone.make(jobs, batch=16, progress=False)
        assert contents(tmp_path / "clips") == contents(tmp_path / "alone")
        file = torchscript(LikeI3D(), tmp_path / "i3d.pt")
        net = find_features("i3d", path=file, sha256=sha256(file))
        preparation = net.preparation(num_frames=16)
        clips = list_clips(tmp_path / "clips")
        found = [
            features_of(clips, net, preparation, Extraction(cache=tmp_path / name, cluster=on, progress=False))
            for name, on in (("there", cluster), ("here", None))
        ]
        assert cluster.call(os.getpid) != os.getpid()
    np.testing.assert_array_equal(*(each.arrays[FEATURES] for each in found))
    assert found[0].names == found[1].names
    assert len(found[0]) == 40


def contents(folder: str | Path) -> dict[str, bytes]:
    """All files of a folder."""
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

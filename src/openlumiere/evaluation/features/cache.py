"""Features of sets of clips: computed a chunk at a time, in several processes, and kept on disk.

A chunk's features are kept under a hash of its clips' contents, the network's file and what becomes of a clip before
it is looked at. So FVD and IS share them where one network gives both, a real set is looked at once for all models,
and a stopped run goes on; renaming or copying clips changes nothing, and changing one is noticed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from openlumiere import files
from openlumiere.batch.cluster import Cluster
from openlumiere.batch.work import Work, run
from openlumiere.errors import LumiereError

from .clip_sets import ClipFile, Preparation, read_prepared
from .networks import FeatureNet

CHUNK = 32  # clips whose features lie in one file
_VERSION = 1  # of how features are computed; a new one leaves old files unused


@dataclass(frozen=True)
class FeatureSet:
    """What a network found in a set of clips.

    Attributes:
        arrays: by `features.FEATURES` and `features.PROBABILITIES`, float32 (clips, ...), memory maps.
        names: of the clips, in the order of the rows.
        refused: clips that were left out, each with the reason.
        side: height and width in pixels of the clips as the network got them.
        sha256: over the contents of all clips listed, in order.
    """

    arrays: dict[str, np.ndarray]
    names: list[str]
    refused: dict[str, str]
    side: int
    sha256: str

    def __len__(self) -> int:
        return len(self.names)

    def check_finite(self) -> None:
        """Refuse NaN by the name of the first clip that has one."""
        for kind, array in self.arrays.items():
            for start in range(0, len(array), 4096):
                bad = np.flatnonzero(~np.isfinite(array[start : start + 4096]).all(1))
                if len(bad):
                    name = self.names[start + int(bad[0])]
                    raise LumiereError(f"the {kind} of {name} are not finite (NaN); look at that clip, and replace it")

    def protocol(self) -> dict[str, Any]:
        """Return what a score's protocol says of it."""
        return {
            "clips": len(self),
            "side": self.side,
            "sha256": self.sha256,
            "refused": len(self.refused),
            "refused_clips": self.refused,
        }


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/openlumiere/features``, by default below ``~/.cache``, where features are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openlumiere" / "features"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How features are computed; what they are depends on none of it.

    Attributes:
        cache: folder that keeps them; None = `cache_folder`.
        workers: processes of this machine.
        cluster: computes them in its own processes; clips and cache lie where all its machines see them.
        batch: clips that the network looks at together.
        strict: refuse a set for one clip that is corrupt or too short, which is otherwise left out and named.
        progress: show a bar.
    """

    cache: Path | None = None
    workers: int = 1
    cluster: Cluster | None = None
    batch: int = 8
    strict: bool = False
    progress: bool = True


def features_of(
    clips: Sequence[ClipFile],
    net: FeatureNet,
    preparation: Preparation,
    extraction: Extraction | None = None,
    *,
    what: str = "clips",
) -> FeatureSet:
    """Return the features of clips, from the cache as far as they are there.

    Args:
        what: they are called in the progress bar and in errors.

    Raises:
        LumiereError: clips of different sizes, no usable clip at all, features that are not finite.
    """
    how = extraction or Extraction()
    cache = how.cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    chunks = [clips[start : start + CHUNK] for start in range(0, len(clips), CHUNK)]
    workers = how.workers if how.cluster is None else 1
    jobs = [_Job(list(chunk), net, preparation, cache, how.batch, workers) for chunk in chunks]
    found: dict[int, _Found] = {}
    with tqdm(total=len(clips), desc=f"features of {what}", unit="clip", disable=not how.progress) as bar:
        for index, done in _run(jobs, workers, how.cluster):
            found[index] = done
            bar.update(len(done.names) + len(done.refused))
    return _together([found[i] for i in range(len(jobs))], cache, net, preparation, strict=how.strict, what=what)


@dataclass(frozen=True)
class _Job:
    clips: list[ClipFile]
    net: FeatureNet
    preparation: Preparation
    cache: Path
    batch: int
    workers: int


@dataclass(frozen=True)
class _Found:
    """A chunk's features in `path`, and the clips that they are of; `path` is None where all were refused."""

    path: Path | None
    names: list[str]
    refused: dict[str, str]
    side: int
    contents: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _ChunkWork(Work[_Job, _Found]):
    """Computes the features of chunks; what is in the cache is only read."""

    cache: Path

    def folder(self) -> Path:
        return self.cache

    def name(self, item: _Job) -> str:
        return f"{item.clips[0].name} to {item.clips[-1].name}"

    def load(self) -> Callable[[_Job], _Found]:
        return _compute


def _run(jobs: Sequence[_Job], workers: int, cluster: Cluster | None) -> Iterator[tuple[int, _Found]]:
    """What was found in each chunk, by its index, in any order."""
    if cluster is not None:
        for outcome in run(jobs, _ChunkWork(jobs[0].cache), cluster, left=len(jobs), keep_going=False):
            assert outcome.value is not None  # as no chunk is done before it is looked at
            yield outcome.index, outcome.value
        return
    if workers == 1 or len(jobs) == 1:
        yield from enumerate(map(_compute, jobs))
        return
    # Spawned: a fork of a process whose PyTorch has started threads may hang.
    with ProcessPoolExecutor(max_workers=min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        try:
            yield from enumerate(pool.map(_compute, jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_loaded: dict[FeatureNet, Any] = {}  # a worker's network, loaded once


def _compute(job: _Job) -> _Found:
    readable, refused = [], {}
    for clip in job.clips:
        try:
            readable.append((clip, clip.fingerprint()))
        except LumiereError as error:
            refused[clip.name] = str(error)
    contents = [content for _, content in readable]
    key = _key(job.net, job.preparation, contents)
    path = job.cache / f"{key}.npz"
    if not path.exists():
        _write(path, *_look(job, readable))
    try:
        with np.load(path, allow_pickle=False) as kept:
            reasons, side = json.loads(str(kept["refused"])), int(kept["side"])
            rows = sum(not reason for reason in reasons)
            if any(len(kept[name]) != rows for name in kept.files if name not in ("refused", "side")):
                raise ValueError("its parts do not fit")
    except Exception as error:
        raise LumiereError(f"{path} is damaged ({error}); delete it and run the command again") from error
    names = [clip.name for (clip, _), reason in zip(readable, reasons, strict=True) if not reason]
    refused |= {clip.name: reason for (clip, _), reason in zip(readable, reasons, strict=True) if reason}
    return _Found(path if names else None, names, refused, side, contents)


def _key(net: FeatureNet, preparation: Preparation, contents: Sequence[str]) -> str:
    parts = [_VERSION, net.name, net.sha256, dataclasses.asdict(preparation), list(contents)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _look(job: _Job, clips: Sequence[tuple[ClipFile, str]]) -> tuple[dict[str, np.ndarray], list[str], int]:
    """Return features of the clips that can be read, each clip's reason why not (or ""), and the clips' side."""
    if job.net not in _loaded:
        import torch

        if job.workers > 1:
            torch.set_num_threads(max((os.cpu_count() or 1) // job.workers, 1))
        _loaded.clear()
        _loaded[job.net] = job.net.load()
    network = _loaded[job.net]
    reasons: list[str] = []
    frames: list[np.ndarray] = []
    outputs: list[dict[str, np.ndarray]] = []
    side, first = 0, ""

    def flush() -> None:
        if frames:
            outputs.append(network(np.stack(frames)))
            frames.clear()

    for clip, content in clips:
        try:
            frames.append(read_prepared(clip, job.preparation, key=content))
        except LumiereError as error:
            reasons.append(str(error))
            continue
        reasons.append("")
        if side not in (0, frames[-1].shape[1]):
            raise _sizes(first, side, clip.name, frames[-1].shape[1])
        side, first = frames[-1].shape[1], first or clip.name
        if len(frames) == job.batch:
            flush()
    flush()
    return {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]} if outputs else {}, reasons, side


def _sizes(one: str, its: int, other: str, side: int) -> LumiereError:
    return LumiereError(
        f"clips of different sizes: the square of {one} has {its} pixels on a side, that of {other} {side}; bring all "
        "to one size with --size"
    )


def _write(path: Path, arrays: dict[str, np.ndarray], reasons: Sequence[str], side: int) -> None:
    with files.replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, refused=np.array(json.dumps(list(reasons))), side=np.array(side), **arrays)  # type: ignore[arg-type]


def _together(
    found: Sequence[_Found], cache: Path, net: FeatureNet, preparation: Preparation, *, strict: bool, what: str
) -> FeatureSet:
    names = [name for done in found for name in done.names]
    refused = {name: reason for done in found for name, reason in done.refused.items()}
    if refused and (strict or not names):
        name, reason = next(iter(refused.items()))
        raise LumiereError(f"{len(refused)} {what} cannot be used, such as {name}: {reason}")
    if not names:
        raise LumiereError(f"there are no {what}; give some")
    used = [done for done in found if done.path]
    for done in used[1:]:
        if done.side != used[0].side:
            raise _sizes(used[0].names[0], used[0].side, done.names[0], done.side)
    contents = [content for done in found for content in done.contents]
    digest = hashlib.sha256("".join(contents).encode()).hexdigest()
    whole = FeatureSet(_joined(used, cache, _key(net, preparation, contents)), names, refused, used[0].side, digest)
    whole.check_finite()
    return whole


def _joined(found: Sequence[_Found], cache: Path, key: str) -> dict[str, np.ndarray]:
    """Return the chunks' arrays one after the other, as memory maps."""
    rows = sum(len(done.names) for done in found)
    with np.load(_path(found[0]), allow_pickle=False) as first:
        kinds = {name: first[name].shape[1:] for name in first.files if name not in ("refused", "side")}
    joined = {}
    for kind, shape in kinds.items():
        path = cache / f"{key}.{kind}.npy"
        if not path.exists():
            with files.replacing(path) as partial:
                target = np.lib.format.open_memmap(partial, "w+", np.float32, (rows, *shape))
                at = 0
                for done in found:
                    with np.load(_path(done), allow_pickle=False) as part:
                        target[at : at + len(done.names)] = part[kind]
                    at += len(done.names)
                target.flush()
                del target
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != (rows, *shape):
            raise LumiereError(f"{path} is damaged; delete it and run the command again")
        joined[kind] = array
    return joined


def _path(found: _Found) -> Path:
    assert found.path is not None
    return found.path

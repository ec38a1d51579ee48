"""FVD and Inception Score of sets of clips, from listing the clips to a score with its whole protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.evaluation.features.cache import Extraction, FeatureSet, features_of
from openlumiere.evaluation.features.clip_sets import ClipFile, Preparation, Sampling, list_clips, some_of
from openlumiere.evaluation.features.networks import FEATURES, PROBABILITIES, FeatureNet, find_features
from openlumiere.evaluation.metrics.frechet import Extrapolation, bootstrap_interval, extrapolate, frechet
from openlumiere.evaluation.metrics.inception_score import inception_score
from openlumiere.evaluation.scores import Score, write_score

Clips = str | Path | Sequence[ClipFile]
REPLICATES = 100


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What a score of sets of clips depends on besides the clips.

    Attributes:
        features: the feature network, one of `networks.NAMES`.
        features_file, features_sha256: its file and hash, see `networks.find_features`.
        device: torch device of the network.
        num_frames, sampling, size, fps, resize: what becomes of a clip, see `clip_sets.Preparation`.
        clips: compare so many of each set, drawn at random; None = all.
        seed: of that choice, of random windows and of the bootstrap.
    """

    features: str
    features_file: str | Path | None = None
    features_sha256: str | None = None
    device: str = "cpu"
    num_frames: int = 16
    sampling: Sampling | None = None
    size: int | None = None
    fps: float | None = None
    resize: str = "lanczos"
    clips: int | None = None
    seed: int = 0

    def network(self) -> FeatureNet:
        """Find the feature network, and check its hash."""
        return find_features(self.features, path=self.features_file, sha256=self.features_sha256, device=self.device)

    def preparation(self, net: FeatureNet) -> Preparation:
        """Return what becomes of a clip before the network looks at it."""
        return net.preparation(
            num_frames=self.num_frames, sampling=self.sampling, size=self.size, fps=self.fps, resize=self.resize,
            seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FVDSettings(ClipSettings):
    """Of `fvd`; `features` is "i3d" (FVD) or "emoji" (FVD-emoji), `replicates` is of the bootstrap."""

    features: str = "i3d"
    replicates: int = REPLICATES


@dataclass(frozen=True, kw_only=True)
class InceptionSettings(ClipSettings):
    """Of `inception`; `features` is "c3d" (IS) or "emoji" (IS-emoji), `splits` see `inception_score`."""

    features: str = "c3d"
    splits: int = 10


def fvd(
    real: Clips,
    generated: Clips,
    output: Path | None = None,
    settings: FVDSettings | None = None,
    extraction: Extraction | None = None,
    *,
    command: str = "",
) -> Score:
    """Return the Fréchet video distance of generated clips from real ones (Unterthiner et al. 2018); less is better.

    Args:
        real, generated: folders of clips, shards (.tar) or folders of them, or lists of `clip_sets.ClipFile`.
        output: folder for ``fvd.json``, ``fvd.md`` and ``fvd.png``; nothing is written when None.
        command: kept in the score.

    Raises:
        LumiereError: as `list_clips`, `find_features` and `features_of`.
    """
    how = settings or FVDSettings()
    if how.features == "c3d":
        raise LumiereError("--features c3d gives classes alone, for IS; FVD takes i3d or emoji")
    net = how.network()
    preparation = how.preparation(net)
    found = [
        _features(clips, name, net, preparation, how, extraction)
        for name, clips in (("real", real), ("generated", generated))
    ]
    score = fvd_of(
        found[0], found[1], net, [preparation] * 2, seed=how.seed, replicates=how.replicates, command=command
    )
    if output is not None:
        write_fvd(score, output)
    return score


def _features(
    source: Clips,
    name: str,
    net: FeatureNet,
    preparation: Preparation,
    settings: ClipSettings,
    extraction: Extraction | None,
) -> FeatureSet:
    """Return the features of a set, or of so many of its clips."""
    listed = list_clips(source) if isinstance(source, str | Path) else source
    what = str(source) if isinstance(source, str | Path) else f"the {name} set"
    chosen = some_of(listed, settings.clips, seed=settings.seed, what=what)
    return features_of(chosen, net, preparation, extraction, what=f"{name} clips")


def fvd_of(
    real: FeatureSet,
    generated: FeatureSet,
    net: FeatureNet,
    preparations: Sequence[Preparation],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    command: str = "",
) -> Score:
    """Return the score of features that are there already; `preparations` are of the real and the generated clips."""
    if real.side != generated.side:
        raise LumiereError(
            f"real clips of {real.side} pixels on a side against generated ones of {generated.side}; bring both to one "
            "size with --size"
        )
    sets = {"real": real, "generated": generated}
    for name, one in sets.items():
        if len(one) < 2:
            raise LumiereError(f"only {len(one)} usable {name} clip; FVD needs at least 2, and hundreds to say much")
    ours, theirs = real.arrays[FEATURES], generated.arrays[FEATURES]
    dimensions = ours.shape[1]
    notes = _notes(net, sets)
    if len(real) != len(generated):
        notes.append(
            f"unequal counts ({len(real)} real, {len(generated)} generated): all were used, and the bias of both is in "
            "the value"
        )
    for name, one in sets.items():
        if len(one) <= dimensions:
            notes.append(
                f"fewer {name} clips ({len(one)}) than the features have dimensions ({dimensions}): the covariance is "
                "singular, which is reckoned with exactly, and the value far too large, which is not"
            )
    details: dict[str, Any] = {"dimensions": dimensions}
    if min(len(real), len(generated)) >= 8:
        infinity = extrapolate(ours, theirs, seed=seed)
        details["infinity"] = dataclasses.asdict(infinity)
        if not infinity.linear:
            notes.append(
                "the extrapolation to infinitely many clips starts from sets smaller than five times the dimensions, "
                "where the distance is not linear in 1/N: take it as a hint"
            )
    metric = net.metric("FVD")
    return Score(
        metric=metric,
        value=frechet(ours, theirs),
        interval_95=bootstrap_interval(ours, theirs, replicates=replicates, seed=seed),
        better="less",
        details=details,
        protocol={
            "features": net.protocol() | {"dimensions": dimensions},
            **_preparation(dict(zip(sets, preparations, strict=True))),
            "covariance": "divided by the number of clips, as StyleGAN-V",
            "interval": f"bootstrap of both sets, {replicates} replicates, spread about the measured value",
            "seed": seed,
            "sets": {name: one.protocol() for name, one in sets.items()},
        },
        notes=notes,
        command=command,
    )


def write_fvd(score: Score, output: Path) -> None:
    """Write ``fvd.json``, ``fvd.md`` and, where it was extrapolated, ``fvd.png``."""
    write_score(score, output, "fvd")
    infinity = score.details.get("infinity")
    if infinity:
        plot_bias(Extrapolation(**infinity), output / "fvd.png", name=score.metric)


def plot_bias(found: Extrapolation, path: Path, *, name: str) -> None:
    """Draw the distance against 1/N with its line, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    inverse = [1 / min(ours, theirs) for ours, theirs, _ in found.points]
    axes.plot(inverse, [distance for *_, distance in found.points], "o", markersize=4)
    last = found.points[-1]
    slope = np.polyfit(inverse, [distance for *_, distance in found.points], 1)[0]
    axes.plot([0, max(inverse)], [found.value, found.value + slope * max(inverse)], color="black", linewidth=1)
    axes.plot([0], [found.value], "s", color="black", label=f"infinitely many clips: {found.value:.4g}")
    axes.plot(inverse[-1:], [last[2]], "o", color="tab:red", label=f"all {min(last[:2])}: {last[2]:.4g}")
    axes.set(xlabel="1 / number of clips", ylabel=name, xlim=(-0.02 * max(inverse), None))
    axes.legend(frameon=False)
    with files.replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def inception(
    generated: Clips,
    output: Path | None = None,
    settings: InceptionSettings | None = None,
    extraction: Extraction | None = None,
    *,
    command: str = "",
) -> Score:
    """Return the Inception Score of generated clips (Saito et al. 2020, on C3D); more is better.

    Args:
        output: folder for ``is.json`` and ``is.md``; nothing is written when None.

    The other arguments and errors are `fvd`'s.
    """
    how = settings or InceptionSettings()
    if how.features == "i3d":
        raise LumiereError("--features i3d gives no classes, for FVD; IS takes c3d or emoji")
    net = how.network()
    preparation = how.preparation(net)
    found = _features(generated, "generated", net, preparation, how, extraction)
    score = inception_of(found, net, preparation, splits=how.splits, seed=how.seed, command=command)
    if output is not None:
        write_score(score, output, "is")
    return score


def inception_of(
    generated: FeatureSet,
    net: FeatureNet,
    preparation: Preparation,
    *,
    splits: int = 10,
    seed: int = 0,
    command: str = "",
) -> Score:
    """Return the score of class probabilities that are there already."""
    probabilities = generated.arrays[PROBABILITIES]
    found = inception_score(probabilities, splits=splits, seed=seed)
    notes = _notes(net, {"generated": generated})
    if len(generated) < 10 * splits:
        notes.append(f"{len(generated)} clips in {splits} splits are few: the score of small parts is too low")
    return Score(
        metric=net.metric("IS"),
        value=found.mean,
        interval_95=found.interval_95,
        better="more",
        details={"std_over_splits": found.std, "splits": splits, "classes": int(probabilities.shape[1])},
        protocol={
            "features": net.protocol() | {"classes": int(probabilities.shape[1])},
            **_preparation({"generated": preparation}),
            "splits": splits,
            "interval": "bootstrap within the splits, 200 replicates, spread about the measured value",
            "seed": seed,
            "sets": {"generated": generated.protocol()},
        },
        notes=notes,
        command=command,
    )


def _notes(net: FeatureNet, sets: dict[str, FeatureSet]) -> list[str]:
    notes = []
    if net.name == "c3d":
        notes.append("nobody published a hash of c3d_ucf101.pt: the one used is recorded, not checked")
    for name, one in sets.items():
        if one.refused:
            first, reason = next(iter(one.refused.items()))
            notes.append(f"{len(one.refused)} {name} clips were left out, such as {first}: {reason}")
    return notes


def _preparation(by_set: dict[str, Preparation]) -> dict[str, Any]:
    one = next(iter(by_set.values()))
    return {
        "num_frames": one.num_frames,
        "sampling": {name: preparation.sampling for name, preparation in by_set.items()},
        "fps": "as stored" if one.fps is None else one.fps,
        "crop": "central square",
        "size": "as stored" if one.size is None else one.size,
        "resize_filter": f"Pillow {one.resize}",
        "transparency": "over white",
        "input_range": "uint8, 0 to 255",
    }

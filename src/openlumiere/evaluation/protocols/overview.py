"""`lumiere evaluate all`: all that can be measured without a network, on one page that needs no other file.

Every protocol runs as its own command would, into a folder of its own below the report's, and goes on where it was
stopped. The page shows their tables, pictures and some clips; what could not be measured is named, with the reason.
"""

from __future__ import annotations

import platform
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openlumiere import files
from openlumiere.data.emoji.scenes import vocabulary
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.features.cache import Extraction
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.metrics.periodicity import PERIODS
from openlumiere.evaluation.metrics.pixels import SIDE
from openlumiere.evaluation.protocols.emoji_report import TITLES
from openlumiere.evaluation.protocols.emoji_report import markdown as emoji_markdown
from openlumiere.evaluation.scores import versions
from openlumiere.video import write_clip

from . import editing, emoji, seams, styles, upscaling
from .distributions import FVDSettings, InceptionSettings, fvd, inception
from .page import Section, page
from .xt import draw_slices, liveliest

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

_SLICES = 4  # at most so many periodic clips are sliced
_SAMPLES = 8


def evaluate_all(
    model: str,
    data: Path,
    output: Path,
    *,
    designs: Path | None = None,
    clips: int = 12,
    num_frames: int = 80,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    judges: Judges | None = None,
    progress: bool = True,
) -> Path:
    """Measure a model by every protocol, and write ``report.html``.

    Args:
        model: bundled name, local folder or hub id.
        data: folder that `lumiere data emoji` wrote.
        designs: folder that `lumiere data designs` wrote; None = styles are not measured.
        clips: of each protocol; styles take a third of them.

    Returns:
        The page's path. A protocol that a model cannot be measured by, such as editing one that takes no clip, is named
        on the page with the reason; what is broken is an error as everywhere.
    """
    from openlumiere.pipelines.load import load_pipeline

    output.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(model, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    if judges is None:
        atlases = load_atlases(data, list(vocabulary()["subjects"]), side=2 * SIDE)
        judges = load_judges(atlases, data / "classifier", progress=progress)
    asked = ["--model", model, "--data", data]
    where = [] if device == "auto" else ["--device", device]
    same = ["--frames", num_frames, "--seed", seed, *where, *([] if dtype == "auto" else ["--dtype", dtype])]
    whole = _Run(pipe, model, data, output, designs, clips, num_frames, seed, judges, device, dtype, progress)

    def again(name: str, options: Sequence[object], count: int) -> str:
        return _command(name, *options, "--clips", count, *same, "-o", output / name)

    parts: Sequence[tuple[str, str, Callable[[Section], None]]] = (
        ("Does the clip show what was asked for?", again("emoji", [*asked, "--size", SIDE], clips), whole.emoji),
        ("Distribution", whole.fvd_command, whole.fvd),
        ("X-T slices of periodic motions", again("emoji", [*asked, "--size", SIDE], clips), whole.slices),
        ("Editing", again("editing", asked, clips), whole.editing),
        ("Styles", again("styles", [*asked, "--designs", designs or "DESIGNS"], max(clips // 3, 1)), whole.styles),
        ("Loops", again("loops", ["--model", model, "--no-upscale"], max(clips // 4, 1)), whole.loops),
        ("Super-resolution", again("upscale", [*asked, "--steps", 1, 2], clips), whole.upscaling),
        ("Seams between windows", again("seams", asked, clips), whole.seams),
    )
    sections = []
    for title, command, measure in parts:
        section = Section(title, command)
        try:
            measure(section)
        except LumiereError as error:
            section.failed = str(error)
        sections.append(section)
    everything = _command(
        "all", *asked, *(["--designs", designs] if designs else []), "--clips", clips, *same, "-o", output
    )
    path = output / "report.html"
    facts = {
        "model": model, "weights, SHA-256": cache.weights_hash(pipe), "frames": str(num_frames), "seed": str(seed),
        "clips": str(clips), "machine": f"{platform.machine()}, {pipe.device}, {pipe.dtype}".replace("torch.", ""),
        **versions(),
    }  # fmt: skip
    files.write_text(path, page(f"{model}: evaluation", sections, facts, everything))
    return path


def _command(name: str, *words: object) -> str:
    """Return a protocol's command as a shell takes it."""
    return shlex.join(["lumiere", "evaluate", name, *map(str, words)])


@dataclass(frozen=True)
class _Run:
    """The protocols, each filling its section."""

    pipe: LumierePipeline
    model: str
    data: Path
    output: Path
    designs: Path | None
    clips: int
    num_frames: int
    seed: int
    judges: Judges
    device: str
    dtype: str
    progress: bool
    found: dict[str, Any] = field(default_factory=dict)  # by the first protocol: what was asked for in which clip

    def emoji(self, section: Section) -> None:
        report = emoji.evaluate(
            self.model, self.data, self.output / "emoji",
            emoji.EmojiSettings(clips=self.clips, num_frames=self.num_frames, size=SIDE, seed=self.seed),
            device=self.device, dtype=self.dtype, judges=self.judges, progress=self.progress,
        )  # fmt: skip
        self.found.update(report)
        section.text = emoji_markdown(report).partition("\n\n")[2].partition("\n## ")[0]
        section.pictures = [self.output / "emoji" / "sheet.png"]
        seen = report["splits"][TITLES["train"]]["verdicts"]
        for index in np.unique(np.linspace(0, len(seen) - 1, min(_SAMPLES, len(seen))).astype(int)):
            clip = cache.read_array(emoji.clip_path(self.output / "emoji" / emoji.CLIPS, "train", index))
            section.clips.append((_webp(clip), seen[index]["caption"]))

    @property
    def fvd_command(self) -> str:
        sets = (self.output / "emoji" / which for which in (emoji.REAL, emoji.CLIPS))
        return _command("fvd", *sets, *self._distribution_options)

    @property
    def _distribution_options(self) -> list[object]:
        return ["--features", "emoji", "--sampling", "spread", "--seed", self.seed, "-o", self.output / "distribution"]

    def fvd(self, section: Section) -> None:
        made, real = (self.output / "emoji" / which for which in (emoji.CLIPS, emoji.REAL))
        folder = self.output / "distribution"
        how: dict[str, Any] = {"features": "emoji", "sampling": "spread", "seed": self.seed}
        extraction = Extraction(progress=self.progress)
        again = _command("is", made, *self._distribution_options, "--splits", 1)
        found = (
            fvd(real, made, folder, FVDSettings(**how), extraction, command=self.fvd_command),
            inception(made, folder, InceptionSettings(splits=1, **how), extraction, command=again),
        )
        section.text = "\n\n".join(
            "\n".join([f"**{score.line()}**", "", *(f"- {note}" for note in score.notes)]) for score in found
        )
        section.pictures = sorted(folder.glob("*.png"))

    def slices(self, section: Section) -> None:
        folders = [self.output / "emoji" / which for which in (emoji.REAL, emoji.CLIPS)]
        if not self.found:
            raise LumiereError("the clips of the first section are needed, and could not be made")
        commands = []
        asked = [
            (split, verdict)
            for split, title in TITLES.items()
            for verdict in self.found["splits"][title]["verdicts"]
            if verdict["asked"]["motion"] in PERIODS
        ]
        if not asked:
            raise LumiereError("no clip of a periodic motion was asked for; ask for more --clips")
        for split, verdict in asked[:_SLICES]:
            index = verdict["index"]
            paths = [emoji.clip_path(folder, split, index) for folder in folders]
            pair = [cache.read_array(path) for path in paths]
            path = self.output / f"slices-{split}-{index}.png"
            axis = "row" if verdict["asked"]["motion"] == "sway" else "column"
            at = round(liveliest(pair[0], axis=axis), 4)
            draw_slices(pair, [f"real: {verdict['caption']}", "made"], path, axis=axis, at=at, side=160)
            section.pictures.append(path)
            commands.append(_command("xt", *paths, f"--{axis}", at, "-o", path))
        section.command = "\n".join(commands)

    def editing(self, section: Section) -> None:
        folder = self.output / "editing"
        report = editing.evaluate_editing(
            self.pipe, self.data, folder,
            clips=self.clips, num_frames=self.num_frames, seed=self.seed, judges=self.judges, progress=self.progress,
        )  # fmt: skip
        section.text = editing.markdown(report)
        section.pictures = [folder / f"{task}.png" for task in report["figures"] if (folder / f"{task}.png").exists()]

    def styles(self, section: Section) -> None:
        if self.designs is None:
            raise LumiereError("give the folder that lumiere data designs wrote: --designs")
        folder = self.output / "styles"
        report = styles.evaluate_styles(
            self.pipe, self.data, self.designs, folder,
            clips=max(self.clips // 3, 1), num_frames=self.num_frames, seed=self.seed, judges=self.judges,
            progress=self.progress,
        )  # fmt: skip
        section.text = styles.markdown(report)
        section.pictures = [folder / "styles.png", folder / "sheet.png"]

    def loops(self, section: Section) -> None:
        report = seams.evaluate_loops(
            self.pipe, self.output / "loops",
            clips=max(self.clips // 4, 1), num_frames=self.num_frames, seed=self.seed, upscale=False,
            progress=self.progress,
        )  # fmt: skip
        found = "; ".join(f"{name}: {ratio:.2f}" for name, ratio in report["ratio_at_wrap"].items())
        section.text = f"Difference between the last frame and the first, over that between adjacent ones. {found}."

    def upscaling(self, section: Section) -> None:
        folder = self.output / "upscale"
        report = upscaling.evaluate_upscaling(
            self._second_stage(), self.data, folder,
            clips=self.clips, num_frames=self.num_frames, steps=[1, 2], seed=self.seed, progress=self.progress,
        )  # fmt: skip
        section.text = upscaling.markdown(report)
        section.pictures = [folder / "upscale.png", folder / "frames.png"]

    def seams(self, section: Section) -> None:
        folder = self.output / "seams"
        report = seams.evaluate_seams(
            self._second_stage(), self.data, folder,
            clips=self.clips, num_frames=self.num_frames, seed=self.seed, progress=self.progress,
        )  # fmt: skip
        found = "; ".join(f"{name}: {ratio:.3f}" for name, ratio in report["ratio_at_borders"].items())
        section.text = f"Difference between adjacent frames at window borders, over that elsewhere. {found}."
        section.pictures = [folder / "seams.png"]

    def _second_stage(self) -> LumiereSuperResolutionPipeline:
        stage = self.pipe.super_resolution
        if stage is None:
            raise LumiereError("this model has no super-resolution stage")
        stage.set_progress_bar_config(disable=True)
        return stage


def _webp(clip: np.ndarray, side: int = 128) -> bytes:
    """Return a clip as an animated WebP, its pixels repeated to at most `side`."""
    factor = max(side // clip.shape[1], 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webp"
        write_clip(clip.repeat(factor, 1).repeat(factor, 2), path, fps=16)
        return path.read_bytes()

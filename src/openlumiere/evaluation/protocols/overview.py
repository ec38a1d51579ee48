"""`lumiere evaluate all`: all that can be measured without a network, on one page that needs nothing beside it.

Every protocol runs as its own command would, into a folder of its own below the report's, and goes on where it was
stopped. The page shows their tables, pictures and some clips; what could not be measured is named, with the reason.
"""

from __future__ import annotations

import base64
import html
import platform
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openlumiere.data.emoji.scenes import vocabulary
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation import scores as protocol
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.judges.tracks import SIDE
from openlumiere.evaluation.metrics.periodicity import PERIODS
from openlumiere.evaluation.tables import TITLES
from openlumiere.evaluation.tables import markdown as emoji_markdown
from openlumiere.video import write_clip

from . import distributions as scores
from . import editing, emoji, seams, styles, upscaling
from .xt import draw_slices, liveliest

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

_SLICES = 4  # at most so many periodic clips are sliced
_SAMPLES = 8


@dataclass
class Section:
    """One part of the page.

    Attributes:
        title, command: what it is, and what makes it alone.
        text: Markdown, tables and all.
        pictures: PNG files.
        clips: animated WebP, with what each shows.
        failed: why there is nothing else; None = there is.
    """

    title: str
    command: str
    text: str = ""
    pictures: list[Path] = field(default_factory=list)
    clips: list[tuple[bytes, str]] = field(default_factory=list)
    failed: str | None = None


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
    told = ["--model", model, "--data", data]
    place = [] if device == "auto" else ["--device", device]
    same = ["--frames", num_frames, "--seed", seed, *place, *([] if dtype == "auto" else ["--dtype", dtype])]
    whole = _Run(pipe, model, data, output, designs, clips, num_frames, seed, judges, device, dtype, progress)

    def again(name: str, options: Sequence[object], count: int) -> str:
        return _command(name, *options, "--clips", count, *same, "-o", output / name)

    parts: Sequence[tuple[str, str, Callable[[Section], None]]] = (
        ("Does the clip show what was asked for?", again("emoji", [*told, "--size", SIDE], clips), whole.emoji),
        ("Distribution", whole.fvd_command, whole.fvd),
        ("X-T slices of periodic motions", again("emoji", [*told, "--size", SIDE], clips), whole.slices),
        ("Editing", again("editing", told, clips), whole.editing),
        ("Styles", again("styles", [*told, "--designs", designs or "DESIGNS"], max(clips // 3, 1)), whole.styles),
        ("Loops", again("loops", ["--model", model, "--no-upscale"], max(clips // 4, 1)), whole.loops),
        ("Super-resolution", again("upscale", [*told, "--steps", 1, 2], clips), whole.upscaling),
        ("Seams between windows", again("seams", told, clips), whole.seams),
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
        "all", *told, *(["--designs", designs] if designs else []), "--clips", clips, *same, "-o", output
    )
    path = output / "report.html"
    facts = {
        "model": model, "weights, SHA-256": cache.weights_hash(pipe), "frames": str(num_frames), "seed": str(seed),
        "clips": str(clips), "machine": f"{platform.machine()}, {pipe.device}, {pipe.dtype}".replace("torch.", ""),
        **protocol.versions(),
    }  # fmt: skip
    cache.write_text(path, page(f"{model}: evaluation", sections, facts, everything))
    return path


def _command(name: str, *words: object) -> str:
    """A protocol's command as a shell takes it."""
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
    told: dict[str, Any] = field(default_factory=dict)  # by the first protocol: what was asked for in which clip

    def emoji(self, section: Section) -> None:
        report = emoji.evaluate(
            self.model, self.data, self.output / "emoji",
            clips=self.clips, num_frames=self.num_frames, size=SIDE, seed=self.seed, device=self.device,
            dtype=self.dtype, judges=self.judges, progress=self.progress,
        )  # fmt: skip
        self.told.update(report)
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
        how: dict[str, Any] = {
            "features": "emoji", "sampling": "spread", "seed": self.seed, "progress": self.progress,
        }  # fmt: skip
        again = _command("is", made, *self._distribution_options, "--splits", 1)
        found = (
            scores.fvd(real, made, folder, command=self.fvd_command, **how),
            scores.inception(made, folder, splits=1, command=again, **how),
        )
        section.text = "\n\n".join(
            "\n".join([f"**{score.line()}**", "", *(f"- {note}" for note in score.notes)]) for score in found
        )
        section.pictures = sorted(folder.glob("*.png"))

    def slices(self, section: Section) -> None:
        folders = [self.output / "emoji" / which for which in (emoji.REAL, emoji.CLIPS)]
        if not self.told:
            raise LumiereError("the clips of the first section are needed, and could not be made")
        commands = []
        asked = [
            (split, verdict)
            for split, title in TITLES.items()
            for verdict in self.told["splits"][title]["verdicts"]
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
    """A clip as an animated WebP, its pixels enlarged as they are."""
    factor = max(side // clip.shape[1], 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webp"
        write_clip(clip.repeat(factor, 1).repeat(factor, 2), path, fps=16)
        return path.read_bytes()


# ------------------------------------------------------------------------------------------------ the page


def page(title: str, sections: Sequence[Section], facts: Mapping[str, str], again: str) -> str:
    """Sections as one HTML page, pictures and clips inside it."""
    from markdown import markdown as as_html

    parts = [f"<h1>{html.escape(title)}</h1>", "<nav>"]
    parts += [f'<a href="#s{n}">{html.escape(section.title)}</a>' for n, section in enumerate(sections)]
    parts.append("</nav>")
    for number, section in enumerate(sections):
        parts.append(f'<section id="s{number}"><h2>{html.escape(section.title)}</h2>')
        if section.failed is not None:
            parts.append(f'<p class="failed">Not measured: {html.escape(section.failed)}</p>')
        parts.append(f'<div class="wide">{as_html(section.text, extensions=["tables"])}</div>')
        if section.clips:
            shown = (_figure("webp", clip, caption) for clip, caption in section.clips)
            parts.append(f'<div class="clips">{"".join(shown)}</div>')
        parts += [_figure("png", picture.read_bytes(), "") for picture in section.pictures]
        parts.append(f"<pre>{html.escape(section.command)}</pre></section>")
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    parts.append(f"<section><h2>Protocol</h2><table>{rows}</table><pre>{html.escape(again)}</pre></section>")
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _figure(kind: str, picture: bytes, caption: str) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    told = html.escape(caption)
    below = f"<figcaption>{told}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{told}" loading="lazy">{below}</figure>'


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; border-bottom: 1px solid var(--line); padding-bottom: 1rem; }
section { margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
pre { background: var(--soft); padding: .6rem .8rem; font-size: .85rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; }
.clips figure { margin: 0; }
figcaption { font-size: .8rem; }
.failed { border-left: 4px solid #c80; padding-left: .8rem; }
"""

"""A study's folder: our clips beside those of other methods, made alike in all but what they show.

The paper's protocol: a rater sees our clip and a baseline's of the same prompt side by side. Both are cut to the length
of the shorter one; here also to one size and frame rate, and encoded anew by the same encoder, under names drawn at
random, so that neither format nor codec nor file name says whose clip it is.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import random
import re
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.video import VIDEO_SUFFIXES, Fit, colour, probe, read_fitted, read_metadata, write_clip

Question = Literal["quality", "text"]
QUESTIONS: dict[Question, str] = {
    "quality": "Which video is better in quality and motion?",
    "text": "Which video matches the text better?",
}
Rate = float | Literal["lower", "higher"]

_FORMAT = 1  # of study.json
_SUFFIXES = VIDEO_SUFFIXES | {".webp", ".gif"}
_PROMPTS = "prompts.csv"
_SHORTEST = 2  # frames: less than that shows no motion
_SMALLEST = 16  # pixels of a side: smaller ones cannot be judged, and not every decoder takes them
_LONGEST_PROMPT = 2000  # characters, so that a page can show it
_ALMOST = 0.01  # of a frame: what a container's time base may round off a clip's end
_NAME = re.compile(r"[\w][\w .+-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two clips to choose from: `ours` and the `other`, names of files in the study's ``clips`` folder.

    Of an attention check `ours` is the right answer, and `check` the question that it is about.
    """

    id: str
    prompt: str
    questions: tuple[Question, ...]
    ours: str
    other: str
    width: int
    height: int
    frames: int
    fps: float
    baseline: str = ""  # empty for a check
    check: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)  # file: its SHA-256


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A method that ours is compared with."""

    pairs: int
    questions: tuple[Question, ...]
    left_out: Mapping[str, Sequence[str]]  # why: the files


@dataclass(frozen=True, kw_only=True)
class Study:
    """What `create_study` wrote and `load_study` reads; `folder` holds ``study.json`` and ``clips``."""

    folder: Path
    title: str
    ours: str
    seed: int
    pairs_per_rater: int
    baselines: Mapping[str, Baseline]
    pairs: tuple[Pair, ...]
    checks: tuple[Pair, ...]
    settings: Mapping[str, Any]
    fingerprint: str  # SHA-256 of study.json

    def clip(self, name: str) -> Path:
        """Return the file of one of the study's clips."""
        return self.folder / "clips" / name

    @property
    def shown(self) -> int:
        """Return the number of pairs that each rater sees, checks included."""
        return self.pairs_per_rater + len(self.checks)

    def raters_for(self, judgements: int = 400) -> int:
        """Raters that give about so many answers to each baseline's question; the paper has about 400."""
        return math.ceil(judgements * len(self.baselines) / self.pairs_per_rater)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One input clip."""

    path: Path
    prompt: str

    @property
    def key(self) -> str:
        return prompt_key(self.prompt)


def prompt_key(prompt: str) -> str:
    """Return what prompts are matched by: letters and digits in lower case, words parted by single spaces."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", prompt).casefold()))


def read_folder(folder: Path) -> tuple[dict[str, _Source], list[str]]:
    """Read a method's clips by prompt.

    The prompt of a clip is, in this order: what ``prompts.csv`` (columns file, prompt) in the folder says; what
    `lumiere generate` wrote into it; its name without suffix, with spaces for dashes and underscores. Where there is
    a ``prompts.csv``, it alone says which clips take part.

    Returns:
        Clips by `prompt_key`, and the names of other files, which take no part.

    Raises:
        LumiereError: no folder, no clips, two clips of one prompt, or a bad ``prompts.csv``.
    """
    if not folder.is_dir():
        raise LumiereError(f"{folder} is not a folder of clips; check the name")
    listed = _read_prompts(folder / _PROMPTS) if (folder / _PROMPTS).exists() else None
    found: dict[str, _Source] = {}
    ignored = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == _PROMPTS:
            continue
        if not _is_clip(path) or (listed is not None and path.name not in listed):
            ignored.append(path.name)
            continue
        source = _Source(path=path, prompt=_prompt_of(path) if listed is None else listed[path.name])
        if not source.key:
            raise LumiereError(f"{path}: no prompt can be told from its name; list it in {folder / _PROMPTS}")
        if len(source.prompt) > _LONGEST_PROMPT:
            raise LumiereError(f"the prompt of {path} is longer than {_LONGEST_PROMPT} characters; shorten it")
        if source.key in found:
            raise LumiereError(
                f"{found[source.key].path} and {path.name} are of one prompt, {source.prompt!r}; keep one of them, or "
                f"list one in {folder / _PROMPTS}"
            )
        found[source.key] = source
    missing = sorted(set(listed or {}) - {source.path.name for source in found.values()})
    if missing:
        raise LumiereError(f"{folder / _PROMPTS} lists {missing[0]}, which is no clip in {folder}; correct the line")
    if not found:
        raise LumiereError(f"{folder} holds no clips; put files of {', '.join(sorted(_SUFFIXES))} into it")
    return found, ignored


def _is_clip(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES if path.is_file() else any(path.glob("*.png"))


def _prompt_of(path: Path) -> str:
    prompt = read_metadata(path).get("prompt")
    return prompt if isinstance(prompt, str) and prompt.strip() else re.sub(r"[-_\s]+", " ", path.stem).strip()


def _read_prompts(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, strict=True) if any(line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LumiereError(f"{path} is no CSV file in UTF-8 ({error}); save it as such") from error
    if not lines or [cell.lower() for cell in lines[0]] != ["file", "prompt"]:
        raise LumiereError(f"{path} must begin with the line: file,prompt")
    prompts: dict[str, str] = {}
    for number, line in enumerate(lines[1:], 2):
        if len(line) != 2 or not all(line):
            raise LumiereError(f'{path}, entry {number}: give a file and its prompt, e.g. tiger.mp4,"a tiger, asleep"')
        if line[0] in prompts:
            raise LumiereError(f"{path}, entry {number}: {line[0]} is listed twice; remove one of the lines")
        prompts[line[0]] = line[1]
    return prompts


def create_study(
    ours: Path,
    baselines: Mapping[str, Path],
    output: Path,
    *,
    name: str = "Ours",
    title: str = "Which video is better?",
    no_text_question: Iterable[str] = (),
    pairs_per_rater: int = 20,
    checks: int = 3,
    fps: Rate = "lower",
    how: Fit = "crop",
    background: str = "white",
    seed: int = 0,
    progress: bool = True,
) -> Study:
    """Pair our clips with other methods' by prompt, make them alike, and write the study's folder.

    Of each pair both clips are

    - cut to the duration of the shorter one, from their beginnings;
    - shown at one rate, by repeating or leaving out frames;
    - brought to one frame, as wide as the narrower and as high as the lower of the two, so that none is enlarged;
      sides are even, as H.264 needs;
    - encoded as H.264 MP4 (yuv420p, BT.709) by `write_clip`, without a word of metadata, under a random name.

    The folder is built beside its place, as ``OUTPUT.partial``, and renamed at the end; a run that was stopped goes on.

    Args:
        ours: folder of our clips, see `read_folder`.
        baselines: the other methods' folders by the names that the report gives them.
        no_text_question: baselines without a text to match, such as image-to-video methods.
        pairs_per_rater: pairs that each rater sees, beside the checks; all, where there are fewer.
        checks: attention checks that each rater sees: a clip beside the same one spoilt ("quality"), and in turn, where
            a text question is asked, beside a clip of another prompt ("text").
        fps: "lower" or "higher" of the two rates, or frames per second.
        how: "crop" cuts off evenly what sticks out of the common frame, "pad" fills up with the colours of the edges.
        background: what transparent clips are laid over.
        seed: decides names, order, sides and checks.

    Raises:
        LumiereError: bad folders, names or clips; a baseline that shares no prompt with ours; an output that exists.
    """
    unasked = set(no_text_question)
    _check_request(output, name, baselines, unasked, how)
    colour(background)
    own, strange = read_folder(ours)
    theirs = {label: read_folder(folder) for label, folder in baselines.items()}
    rng = random.Random(f"openlumiere study {seed}")
    described: dict[str, Baseline] = {}
    jobs: list[tuple[Pair, _Source, _Source]] = []
    for label, (clips, ignored) in theirs.items():
        shared = [key for key in own if key in clips]
        if not shared:
            raise LumiereError(
                f"no prompt of {ours} is in {baselines[label]}; name the clips alike, or write a {_PROMPTS} into both"
            )
        questions: tuple[Question, ...] = ("quality",) if label in unasked else ("quality", "text")
        left_out = {
            f"without a partner in {label}": [own[key].path.name for key in own if key not in clips],
            f"without a partner in {name}": [clips[key].path.name for key in clips if key not in own],
            f"no clips, or not listed, in {label}": ignored,
            f"no clips, or not listed, in {name}": strange,
        }
        described[label] = Baseline(
            pairs=len(shared), questions=questions, left_out={why: files for why, files in left_out.items() if files}
        )
        jobs += [(_blank(own[key].prompt, questions, baseline=label), own[key], clips[key]) for key in shared]
    kinds: list[Question] = ["quality", "text"] if set(baselines) - unasked and len(own) > 1 else ["quality"]
    jobs += _plan_checks([kinds[i % len(kinds)] for i in range(checks)], jobs, rng)
    jobs = [(_named(pair, rng), one, two) for pair, one, two in jobs]
    rng.shuffle(jobs)  # so that the order in study.json, and of the files' dates, tells nothing either

    hashes = {path: _sha256(path) for path in sorted({source.path for _, *both in jobs for source in both})}
    settings = {"fps": fps, "how": how, "background": background, "checks": checks}
    partial = _start(output, {**settings, "seed": seed, "sources": {str(path): hashes[path] for path in hashes}})
    made = []
    for pair, one, two in tqdm(jobs, "making pairs", unit="pair", disable=not progress):
        done = _make(pair, one, two, partial / "clips", fps=fps, how=how, background=background, seed=seed)
        made.append(replace(done, sources={source.path.name: hashes[source.path] for source in (one, two)}))
    contents = {
        "format": _FORMAT, "title": title, "ours": name, "seed": seed,
        "pairs_per_rater": min(pairs_per_rater, sum(not pair.check for pair in made)), "settings": settings,
        "baselines": {label: asdict(baseline) for label, baseline in described.items()},
        "pairs": [asdict(pair) for pair in made if not pair.check],
        "checks": [asdict(pair) for pair in made if pair.check],
    }  # fmt: skip
    files.write_json(partial / "study.json", contents)
    (partial / "making.json").unlink()
    os.replace(partial, output)
    return load_study(output)


def _check_request(output: Path, name: str, baselines: Mapping[str, Path], unasked: set[str], how: str) -> None:
    if not baselines:
        raise LumiereError("nothing to compare with; name a method and its folder, e.g. --baseline Pika=clips/pika")
    for label in (name, *baselines):
        if not _NAME.fullmatch(label):
            raise LumiereError(f"{label!r} is no name for a method; use up to 40 letters, digits, spaces and . + -")
    if name in baselines:
        raise LumiereError(f"both ours and a baseline are named {name!r}; give them different names")
    strangers = sorted(unasked - set(baselines))
    if strangers:
        raise LumiereError(f"no baseline is named {strangers[0]!r}; there are {', '.join(baselines)}")
    if how not in ("crop", "pad"):
        raise LumiereError(f"clips cannot be fitted by {how!r}; choose crop or pad")
    if output.exists():
        raise LumiereError(f"{output} exists; choose another name, or delete it if its answers are not needed")
    if not output.absolute().parent.is_dir():
        raise LumiereError(f"the folder {output.parent} does not exist; make it with: mkdir -p {output.parent}")


def _blank(prompt: str, questions: tuple[Question, ...], *, baseline: str = "", check: str = "") -> Pair:
    return Pair(
        id="", prompt=prompt, questions=questions, ours="", other="", width=0, height=0, frames=0, fps=0.0,
        baseline=baseline, check=check,
    )  # fmt: skip


def _named(pair: Pair, rng: random.Random) -> Pair:
    """Random names, each for one use: a clip seen twice under one name would tell whose it is."""
    one, two, three = (f"{rng.getrandbits(128):032x}" for _ in range(3))
    return replace(pair, id=one, ours=f"{two}.mp4", other=f"{three}.mp4")


def _plan_checks(
    kinds: Sequence[Question], jobs: Sequence[tuple[Pair, _Source, _Source]], rng: random.Random
) -> list[tuple[Pair, _Source, _Source]]:
    """Attention checks of our clips that take part: each with itself, to be spoilt, or with one of another prompt."""
    own = list({source.key: source for _, source, _ in jobs}.values())
    planned = []
    for i, kind in enumerate(kinds):
        if i % len(own) == 0:
            deck = rng.sample(own, len(own))
        source = deck[i % len(own)]
        other = source
        if kind == "text":
            others = [candidate for candidate in own if candidate is not source]
            if not others:
                kind = "quality"
            else:
                # The prompt that shares the fewest words, so that only one clip can be meant.
                rng.shuffle(others)
                other = min(others, key=lambda candidate: _overlap(source.key, candidate.key))
        planned.append((_blank(source.prompt, (kind,), check=kind), source, other))
    return planned


def _overlap(one: str, two: str) -> float:
    """Jaccard index of two prompts' words."""
    a, b = set(one.split()), set(two.split())
    return len(a & b) / len(a | b)


def _make(
    pair: Pair, one: _Source, two: _Source, folder: Path, *, fps: Rate, how: Fit, background: str, seed: int
) -> Pair:
    """Write both clips of a pair, unless a stopped run did, and say how large and long they are."""
    shapes = [probe(source.path) for source in (one, two)]
    size = min(shape.height for shape in shapes) // 2 * 2, min(shape.width for shape in shapes) // 2 * 2
    if min(size) < _SMALLEST:
        raise LumiereError(
            f"{one.path} and {two.path} have {size[1]}x{size[0]} pixels in common; {_SMALLEST} on a side is the least"
        )
    rates = [shape.fps for shape in shapes]
    rate = min(rates) if fps == "lower" else max(rates) if fps == "higher" else fps
    shorter = min(shapes, key=lambda shape: shape.duration)
    count = math.floor(shorter.duration * rate + _ALMOST)
    if count < _SHORTEST:
        path = (one, two)[shapes.index(shorter)].path
        raise LumiereError(
            f"{path} lasts {shorter.duration:.2f} s, which is less than {_SHORTEST} frames at {rate:.4g} a second; "
            "give a longer clip"
        )
    for name, source in ((pair.ours, one), (pair.other, two)):
        if not (folder / name).exists():
            clip = read_fitted(
                source.path,
                size,
                how=how,
                fps=rate,
                max_frames=count,
                background=background,
            )
            frames = clip.frames
            if name == pair.other and pair.check == "quality":
                frames = spoil(frames, np.random.default_rng([seed, int(pair.id[:8], 16)]))
            os.utime(write_clip(frames, folder / name, fps=rate), (0, 0))  # ours is made first: its date would tell
    return replace(pair, height=size[0], width=size[1], frames=count, fps=float(rate))


def spoil(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make a clip so bad that nobody who looks prefers it: coarse blocks, strong noise, frames out of order.

    Args:
        frames: uint8 (F, H, W, 3).

    Returns:
        The same shape and type.
    """
    count, height, width = frames.shape[:3]
    step = max(min(height, width) // 12, 2)
    rows, columns = (np.arange(side) // step * step for side in (height, width))
    blocks = frames[rng.permutation(count)][:, rows][:, :, columns].astype(np.float32)
    grain = rng.normal(0.0, 70.0, (count, -(-height // 2), -(-width // 2), 1)).repeat(2, 1).repeat(2, 2)
    return (blocks + grain[:, :height, :width]).clip(0, 255).round().astype(np.uint8)


def _start(output: Path, making: Mapping[str, Any]) -> Path:
    """The folder to build in: a new one, or that of a run with the same settings and clips that was stopped."""
    partial = output.with_name(f"{output.name}.partial")
    note, text = partial / "making.json", json.dumps(making, indent=1)
    if partial.exists() and not (note.exists() and note.read_text(encoding="utf-8") == text):
        if partial.is_dir() and (note.exists() or not any(partial.iterdir())):
            shutil.rmtree(partial)  # ours, of other settings or clips: nothing in it can be used
        else:
            raise LumiereError(f"{partial} is in the way; move it, or choose another output")
    (partial / "clips").mkdir(parents=True, exist_ok=True)
    files.write_text(note, text)
    return partial


def load_study(folder: Path) -> Study:
    """Read a study's folder, and check that its clips are there.

    Raises:
        LumiereError: no study, one of another version, or clips missing.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise LumiereError(f"{folder} holds no study.json; make a study with: lumiere study create")
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
        if data["format"] != _FORMAT:
            raise LumiereError(f"{path} is of format {data['format']}, this version reads {_FORMAT}; make it again")
        study = Study(
            folder=folder, title=data["title"], ours=data["ours"], seed=data["seed"],
            pairs_per_rater=data["pairs_per_rater"], settings=data["settings"],
            baselines={label: _baseline(entry) for label, entry in data["baselines"].items()},
            pairs=tuple(_pair(entry) for entry in data["pairs"]),
            checks=tuple(_pair(entry) for entry in data["checks"]),
            fingerprint=hashlib.sha256(raw).hexdigest(),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, LumiereError):
            raise
        raise LumiereError(f"{path} is damaged ({type(error).__name__}: {error}); make the study again") from error
    names = [name for pair in (*study.pairs, *study.checks) for name in (pair.ours, pair.other)]
    missing = next((name for name in names if not study.clip(name).is_file()), None)
    if missing:
        raise LumiereError(f"{study.clip(missing)} is missing; make the study again")
    return study


def _pair(entry: Mapping[str, Any]) -> Pair:
    return Pair(**{**entry, "questions": tuple(entry["questions"])})


def _baseline(entry: Mapping[str, Any]) -> Baseline:
    return Baseline(**{**entry, "questions": tuple(entry["questions"])})


def _sha256(path: Path) -> str:
    """Return the hash of the hashes of a file, or of the frames in a folder in order of their names."""
    listed = [path] if path.is_file() else sorted(path.iterdir())
    return hashlib.sha256(b"".join(bytes.fromhex(files.sha256(file)) for file in listed)).hexdigest()

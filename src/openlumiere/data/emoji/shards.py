"""`lumiere data emoji`: the Fluent animated emoji as WebDataset shards, and reading them back.

The animations are Microsoft's Fluent Emoji (MIT), packaged for npm by LobeHub. Each sample of a shard holds
one loop of one emoji: ``KEY.webp`` (lossless, RGBA, 16 fps) and ``KEY.json`` (names, frame counts).
Loops are stored once; `drawing` repeats them to clips of any length.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, read_json, remove_leftovers, replacing, write_text

from .drawing import Atlas
from .scenes import is_test_artwork
from .vocabulary import vocabulary

PACKAGES = tuple(f"@lobehub/fluent-emoji-anim-{i}" for i in (1, 2, 3, 4))
PACKAGE_VERSION = "1.0.0"
FPS = 16
_CLIPS_PER_SHARD = 64
SKIN_TONES = {f"{tone:x}" for tone in range(0x1F3FB, 0x1F400)}
_DATASHEET = "DATASHEET.md"


@dataclass(frozen=True)
class BuildReport:
    """What `build` did: loops written, still emoji left out, broken files by name with the reason."""

    written: int
    still: int
    broken: dict[str, str]
    shards: int


def build(
    out: Path, *, size: int = 256, skin_tones: bool = False, workers: int = 2, cache: Path | None = None
) -> BuildReport:
    """Fetch, decode, resample to 16 fps and write the shards; finished shards are kept on a second run.

    Args:
        out: folder for the shards, the datasheet and, unless `cache` is given, the fetched packages.
        size: side of the stored frames in pixels, at most 256.
        skin_tones: also take the variants of each emoji in five skin tones.
        workers: decoding processes.
        cache: folder with, or for, the npm packages' archives.
    """
    if not 16 <= size <= 256:
        raise LumiereError(f"--size {size}: the emoji are 256 pixels wide; choose from 16 to 256")
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    archives = fetch(cache or out / "packages")
    sources = [
        (archive, member)
        for archive in archives
        for member in _members(archive)
        if skin_tones or not SKIN_TONES & set(Path(member).stem.split("-"))
    ]
    # The order, and so each shard's content, does not depend on what was done before.
    sources.sort(key=lambda source: Path(source[1]).stem)
    groups = [sources[i : i + _CLIPS_PER_SHARD] for i in range(0, len(sources), _CLIPS_PER_SHARD)]
    # The settings are in the name, so that shards of other settings are never taken for finished ones.
    stem = f"emoji-{size}{'-tones' if skin_tones else ''}"
    jobs = [(out / f"{stem}-{i:04d}.tar", group, size) for i, group in enumerate(groups)]
    strange = sorted(set(out.glob("emoji-*.tar")) - {target for target, _, _ in jobs})
    if strange:
        raise LumiereError(f"{out} holds shards of another build, such as {strange[0].name}: choose another folder")
    written, still, broken = 0, 0, {}
    with ProcessPoolExecutor(max_workers=max(workers, 1)) as pool, tqdm(total=len(sources), unit="file") as bar:
        for done in pool.map(_write_shard, jobs):
            written, still = written + done["written"], still + done["still"]
            broken.update(done["broken"])
            bar.update(done["written"] + done["still"] + len(done["broken"]))
    report = BuildReport(written, still, broken, len(jobs))
    write_text(out / _DATASHEET, _datasheet(report, size, skin_tones))
    return report


def fetch(folder: Path) -> list[Path]:
    """Return the npm packages' archives, fetched with the npm client where they are not in `folder` yet."""
    return [fetch_package(package, PACKAGE_VERSION, folder) for package in PACKAGES]


def fetch_package(package: str, version: str, folder: Path) -> Path:
    """Return the archive of an npm package, fetched with the npm client where it is not in `folder` yet.

    Raises:
        LumiereError: no npm client, or it failed.
    """
    name = f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"
    target = folder / name
    if target.exists():
        return target
    if shutil.which("npm") is None:
        raise LumiereError(f"the npm client is missing: install Node.js, or put {name} into {folder}")
    print(f"fetching {package}@{version} ...", flush=True)
    with replacing(target, suffix=".tgz") as unfinished:  # npm writes into a folder, under the final name as it goes
        fetched = unfinished.with_name(name)
        command = ["npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", str(unfinished.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not fetched.exists():
            output = " ".join((done.stderr or done.stdout).split())[-300:]
            raise LumiereError(
                f"npm could not fetch {package} ({output}): check the network, or put {name} into {folder}"
            )
        os.replace(fetched, unfinished)
    return target


def _members(archive: Path) -> list[str]:
    try:
        with tarfile.open(archive) as tar:
            return [m.name for m in tar.getmembers() if m.isfile() and m.name.endswith(".webp")]
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise LumiereError(f"{archive} is damaged ({_brief(error)}); delete it and run the command again") from error


def _write_shard(job: tuple[Path, list[tuple[Path, str]], int]) -> dict:
    """Write one shard; a finished one is only counted."""
    target, sources, size = job
    index = target.with_suffix(".json")
    if target.exists() and index.exists():
        return read_json(index, otherwise="delete it and run the command again")
    done: dict = {"written": 0, "still": 0, "broken": {}}
    with ExitStack() as stack:
        opened = {archive: stack.enter_context(tarfile.open(archive)) for archive, _ in sources}
        partial = stack.enter_context(replacing(target))
        with tarfile.open(partial, "w") as shard:
            for archive, member in sources:
                key = Path(member).stem
                try:
                    data = opened[archive].extractfile(member).read()  # type: ignore[union-attr]
                    frames = decode_loop(data, size=size)
                    names = names_of(key)
                except Exception as error:  # counted and named in the report, not fatal
                    done["broken"][Path(member).name] = _brief(error)
                    continue
                if len(frames) < 2:
                    done["still"] += 1
                    continue
                meta = {"emoji": key, "names": names, "fps": FPS, "loop_frames": len(frames), "size": size}
                add_member(shard, f"{key}.webp", _encode_loop(frames))
                add_member(shard, f"{key}.json", json.dumps(meta, ensure_ascii=False).encode())
                done["written"] += 1
        write_text(index, json.dumps(done))  # first: a shard that is there has a whole index
    return done


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar archive; nothing but name and contents is stored, so that equal input gives equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def decode_loop(data: bytes, *, size: int, count: int | None = None) -> np.ndarray:
    """Decode an animated WebP to one loop at 16 fps.

    Each output frame is the one on screen at its time: WebP stores a run of equal frames as one long one.

    Args:
        count: number of frames that the loop is divided into; None = its duration at 16 fps.

    Returns:
        uint8 RGBA, shape (loop, size, size, 4).
    """
    with Image.open(io.BytesIO(data)) as picture:
        frames, ends, clock = [], [], 0.0
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            picture.load()
            clock += (picture.info.get("duration") or 1000 / 24) / 1000
            frames.append(picture.convert("RGBA"))
            ends.append(clock)
    if count is None:
        count = max(round(clock * FPS), 1) if len(frames) > 1 else 1
    shown = np.searchsorted(np.asarray(ends), (np.arange(count) + 0.5) * clock / count)
    # The same size comes back unresampled.
    resized = {i: np.asarray(frames[i].resize((size, size), Image.Resampling.LANCZOS)) for i in set(shown.tolist())}
    return np.stack([resized[i] for i in shown.tolist()])


def _encode_loop(frames: np.ndarray) -> bytes:
    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    # `exact` keeps the colour of transparent pixels, and minimize_size off keeps equal frames apart.
    images[0].save(
        buffer, "WEBP", save_all=True, append_images=images[1:], duration=1000 // FPS, loop=0,
        lossless=True, quality=30, method=0, exact=True, minimize_size=False, kmin=1, kmax=1,
    )  # fmt: skip
    return buffer.getvalue()


def names_of(key: str) -> list[str]:
    """Return what an emoji is called, by the `emoji` package: its English name, then its aliases."""
    import emoji

    # Flags of regions write their tags with underscores.
    text = "".join(chr(int(code, 16)) for code in key.replace("_", "-").split("-"))
    entry = emoji.EMOJI_DATA.get(text) or emoji.EMOJI_DATA.get(text.removesuffix("\ufe0f"))
    if entry is None:
        raise LumiereError(f"no emoji has the code points {key}")
    found = [entry["en"], *entry.get("alias", [])]
    return list(dict.fromkeys(name.strip(":").replace("_", " ").replace("-", " ").strip() for name in found))


def _datasheet(report: BuildReport, size: int, skin_tones: bool) -> str:
    broken = "\n".join(f"- `{name}`: {reason}" for name, reason in report.broken.items()) or "none"
    return f"""# Animated emoji

- **Source**: npm packages {", ".join(f"`{p}@{PACKAGE_VERSION}`" for p in PACKAGES)}: Microsoft's Fluent Emoji,
  MIT licence, packaged by LobeHub.
- **Content**: {report.written} loops of {size}x{size} RGBA frames at {FPS} fps, lossless WebP, in {report.shards}
  WebDataset shards; skin-tone variants {"included" if skin_tones else "left out"}; {report.still} still emoji
  left out. Names are those of the PyPI package `emoji` (Unicode CLDR).
- **Composition**: clips are drawn on the fly (`openlumiere.data.emoji.drawing`): subject x background x size x place x
  motion, each said in the caption by one of many paraphrases.
- **Test split, for good** (`openlumiere.data.emoji.scenes`): one subject x motion x background combination in ten, the
  second half of one subject's animation in eight, and a set of templates and words.
- **Broken files** ({len(report.broken)}):
{broken}
"""


def iterate(
    folder: Path, keys: Iterable[str] | None = None, *, stills: bool = False
) -> Iterator[tuple[dict, np.ndarray]]:
    """Read shards back as (metadata, uint8 RGBA frames of shape (loop, size, size, 4)), in order.

    Args:
        keys: only these code points, all when None.
        stills: the first frame of each loop alone.
    """
    shards = sorted(folder.glob("emoji-*.tar"))
    if not shards:
        raise LumiereError(f"no shards in {folder}; make them with: lumiere data emoji -o {folder}")
    wanted = set(keys) if keys is not None else None
    for shard in shards:
        try:
            for key, sample in _samples(shard):
                if wanted is None or key in wanted:
                    meta = json.loads(sample["json"])
                    if stills:
                        with Image.open(io.BytesIO(sample["webp"])) as picture:
                            yield meta, np.array(picture.convert("RGBA"))[None]
                    else:
                        yield meta, decode_loop(sample["webp"], size=meta["size"], count=meta["loop_frames"])
        except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
            raise LumiereError(
                f"{shard} is damaged ({_brief(error)}); delete it and run again: lumiere data emoji -o {folder}"
            ) from error


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read a WebDataset shard: keys, and contents by suffix; a sample's files follow one another."""
    with tarfile.open(shard) as tar:
        named = ((member.name.partition("."), member) for member in tar if member.isfile())
        for key, members in groupby(named, key=lambda entry: entry[0][0]):
            yield key, {suffix: tar.extractfile(member).read() for (_, _, suffix), member in members}  # type: ignore[union-attr]


def _brief(error: Exception) -> str:
    """Return an error in one line, the same on every run: without the addresses of objects."""
    return f"{type(error).__name__}: {one_line(error).partition(' <')[0]}"


def load_atlases(folder: Path, subjects: list[str] | None = None, *, side: int = 64) -> dict[str, Atlas]:
    """Load subjects' animations into memory, premultiplied and at most `side` pixels wide.

    Args:
        subjects: keys of the vocabulary; None = every emoji in the shards, under its own code point, save
            where the vocabulary names it.
    """
    words = vocabulary()["subjects"]
    key_of = {entry["emoji"]: key for key, entry in words.items()}
    if subjects is not None:
        unknown = [subject for subject in subjects if subject not in words]
        if unknown:
            raise LumiereError(f"unknown subjects {unknown}; known: {', '.join(words)}")
    codes = None if subjects is None else [words[subject]["emoji"] for subject in subjects]
    atlases: dict[str, Atlas] = {}
    for meta, rgba in iterate(folder, codes):
        key = key_of.get(meta["emoji"], meta["emoji"])
        names = words[key]["names"] if key in words else meta["names"]
        atlases[key] = Atlas(key, names, premultiplied(rgba, side))
    missing = sorted(set(subjects or ()) - set(atlases))
    if missing:
        raise LumiereError(f"{folder} lacks the subjects {missing}; make it anew with: lumiere data emoji -o {folder}")
    return atlases


def load_stills(folder: Path, *, without: Iterable[str], side: int = 64) -> dict[str, Atlas]:
    """Load the first frames of all other emoji in the shards, but for those of the test split: pictures as users have.

    Args:
        without: keys of the vocabulary that are left out.
    """
    words = vocabulary()["subjects"]
    known = {words[key]["emoji"] for key in without}
    stills = {}
    for meta, rgba in iterate(folder, stills=True):
        code = meta["emoji"]
        if code not in known and not is_test_artwork(code):
            stills[code] = Atlas(code, meta["names"], premultiplied(rgba, side))
    return stills


def premultiplied(rgba: np.ndarray, side: int) -> torch.Tensor:
    """Multiply RGBA frames, uint8, (T, S, S, 4), by their alpha, and shrink them: uint8, (T, 4, side, side)."""
    frames = torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 255.0
    frames = torch.cat([frames[:, :3] * frames[:, 3:], frames[:, 3:]], dim=1)
    if frames.shape[-1] > side:
        frames = torch.nn.functional.interpolate(frames, size=(side, side), mode="bilinear", antialias=True)
    return (frames * 255.0).round().clamp(0, 255).to(torch.uint8)

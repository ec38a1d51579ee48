"""Captioned clips in WebDataset's shards, in a folder or in object storage, as `lumiere data shards` writes them.

A shard is a tar file: of each clip ``KEY.mp4`` and ``KEY.json`` (or ``KEY.txt``, its caption alone). Beside it lies its
index, ``SHARD.jsonl``, a line for each clip: where its bytes are, its captions, its size, length and rate. So any clip
is one read of a range away, every epoch goes through all of them in an order of its own, item n is a function of (seed,
n) alone, and a training goes on at any step without reading what went before. WebDataset itself reads shards from their
beginnings and shuffles within a window: its order depends on the number of readers, and can't be taken up in between.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, replacing
from openlumiere.video import ClipInfo, probe

from .boxes import Boxes
from .emoji.shards import add_member
from .folder import CAPTION_COLUMNS, SUFFIXES, ClipEntry, ClipFolder, FolderReport, needed_seconds

_INDEX = ".jsonl"


@dataclass(frozen=True)
class ShardedClip(ClipEntry):
    """A clip in a shard: `path` is its name there; its bytes are `size` from `offset` on."""

    shard: str = ""
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class IndexReport:
    """What was indexed: clips and shards, and clips that can't be used, by name with the reason."""

    clips: int
    shards: int
    skipped: dict[str, str]


class _Storage:
    """A folder, or what fsspec opens, such as ``s3://bucket/clips``.

    Raises:
        LumiereError: an address that nothing here can open; what is to be installed for it.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        try:
            # Instances are shared within a process, and not with those that are forked off it.
            self.system, self.root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise LumiereError(f"cannot open {address}: {one_line(error)}") from error
        self.local = "file" in (self.system.protocol if isinstance(self.system.protocol, tuple) else [])

    def names(self, suffix: str) -> list[str]:
        try:
            found = self.system.ls(self.root, detail=False)
        except OSError as error:
            raise LumiereError(f"cannot list {self.address} ({one_line(error)}); check the address") from error
        return sorted(path.rpartition("/")[2] for path in found if path.endswith(suffix))

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        try:
            data: bytes = self.system.cat_file(f"{self.root}/{name}", start=start, end=end)
        except Exception as error:  # of every store its own
            raise LumiereError(f"cannot read {name} of {self.address}: {one_line(error)}") from error
        return data

    def put(self, path: Path, name: str) -> None:
        """Write a file whole or not at all; object stores do so by themselves."""
        if not self.local:
            self.system.put_file(str(path), f"{self.root}/{name}")
            return
        with replacing(Path(self.root) / name) as partial:
            shutil.copyfile(path, partial)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield a file's path on this machine."""
        if self.local:
            yield Path(self.root) / name
            return
        with tempfile.TemporaryDirectory() as folder:
            self.system.get_file(f"{self.root}/{name}", str(Path(folder) / name))
            yield Path(folder) / name


def pack(report: FolderReport, address: str, *, per_shard: int = 256) -> IndexReport:
    """Write a folder's usable clips into shards, with their indices. Finished shards are kept on a second run.

    Args:
        address: a folder, or one that fsspec writes to.
        per_shard: clips.

    Raises:
        LumiereError: other shards are there already.
    """
    storage = _Storage(address)
    storage.system.makedirs(storage.root, exist_ok=True)
    groups = [report.clips[i : i + per_shard] for i in range(0, len(report.clips), per_shard)]
    names = [f"clips-{number:05d}.tar" for number in range(len(groups))]
    indexed = set(storage.names(_INDEX))
    if strange := sorted(set(storage.names(".tar")) - set(names)):
        raise LumiereError(f"{address} holds other shards, such as {strange[0]}: choose another folder")
    for name, group in tqdm(list(zip(names, groups, strict=True)), desc="packing", unit="shard"):
        if _index_of(name) in indexed:
            continue
        with tempfile.TemporaryDirectory() as folder:
            shard = Path(folder) / name
            with tarfile.open(shard, "w") as tar:
                for number, clip in enumerate(group):
                    told = {"name": clip.path.name, "captions": clip.captions}
                    told |= {} if clip.boxes is None else clip.boxes.row()
                    add_member(tar, f"{number:05d}{clip.path.suffix.lower()}", clip.path.read_bytes())
                    add_member(tar, f"{number:05d}.json", json.dumps(told, ensure_ascii=False).encode())
            storage.put(shard, name)
    return index(address)


def index(address: str) -> IndexReport:
    """Write the index of every shard that has none yet; each is read once, from its beginning to its end.

    Raises:
        LumiereError: no shards, or a damaged one.
    """
    storage = _Storage(address)
    shards = storage.names(".tar")
    if not shards:
        raise LumiereError(
            f"no shards (*.tar) in {address}; make some of a folder of clips: lumiere data shards FOLDER -o"
        )
    indexed, count = set(storage.names(_INDEX)), 0
    skipped: dict[str, str] = {}
    for shard in tqdm(shards, desc="indexing", unit="shard"):
        if _index_of(shard) in indexed:
            count += len(storage.read(_index_of(shard)).splitlines())
            continue
        try:
            with storage.fetched(shard) as path:
                lines, unusable = _described(path)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise LumiereError(f"{shard} of {address} is damaged ({one_line(error)}); write it anew") from error
        skipped |= {f"{shard}: {name}": reason for name, reason in unusable.items()}
        count += len(lines)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / _index_of(shard)
            file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
            storage.put(file, file.name)
    return IndexReport(count, len(shards), skipped)


def _index_of(shard: str) -> str:
    return shard.removesuffix(".tar") + _INDEX


def _described(shard: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a line for each clip of a shard, and the reasons of those that can't be used, by name."""
    lines, skipped = [], {}
    with tarfile.open(shard) as tar, tempfile.TemporaryDirectory() as folder:
        named = ((member.name.rpartition("/")[2].partition("."), member) for member in tar if member.isfile())
        for key, members in groupby(named, key=lambda entry: entry[0][0]):
            files = {f".{suffix}": member for (_, _, suffix), member in members}
            clip = next((suffix for suffix in files if suffix in SUFFIXES), None)
            if clip is None:
                skipped[key] = f"no clip; one of {', '.join(sorted(SUFFIXES))} is needed"
                continue
            file = Path(folder) / f"clip{clip}"
            file.write_bytes(tar.extractfile(files[clip]).read())  # type: ignore[union-attr]
            texts = {
                suffix: tar.extractfile(member).read().decode()  # type: ignore[union-attr]
                for suffix, member in files.items()
                if suffix in (".json", ".txt")
            }
            try:
                told = _told(texts)
                info = probe(file)
            except LumiereError as error:
                skipped[key] = str(error).replace(str(file), "").strip()
                continue
            place = {"offset": files[clip].offset_data, "size": files[clip].size}
            lines.append({"name": f"{key}{clip}"} | told | place | {"info": asdict(info)})
    return lines, skipped


def _told(texts: dict[str, str]) -> dict[str, Any]:
    """Return a clip's captions, and boxes if it has any, of the texts beside it."""
    row = {"captions": [texts[".txt"]]} if ".txt" in texts else {}
    if ".json" in texts:
        try:
            told = json.loads(texts[".json"])
        except ValueError as error:
            raise LumiereError(f"its .json is no JSON: {one_line(error)}") from error
        row = {"captions": [told[column] for column in CAPTION_COLUMNS if told.get(column)]} | row | told
    captions = [" ".join(str(text).split()) for text in row.get("captions", [])]
    if not any(captions):
        raise LumiereError("no caption; add KEY.txt, or text to KEY.json")
    kept = {name: row[name] for name in ("boxes", "box_times") if row.get(name) is not None}
    Boxes.read(kept)
    return {"captions": [text for text in captions if text]} | kept


class ClipShards(ClipFolder):
    """Windows of the clips in shards, as `ClipFolder` gives those of a folder: item n is a function of (seed, n).

    Args:
        address: of the shards and their indices.
        size, num_frames, fps, seed: see `ClipFolder`; clips that are shorter are left out.

    Raises:
        LumiereError: no shards, a shard without its index, no clip that is long enough; on reading, a clip by name.
    """

    def __init__(self, address: str, *, size: int, num_frames: int = 80, fps: float = 16.0, seed: int = 0) -> None:
        self.address = address
        storage = _Storage(address)
        shards, indexed = storage.names(".tar"), set(storage.names(_INDEX))
        lacking = next((shard for shard in shards if _index_of(shard) not in indexed), None)
        if lacking is not None:
            raise LumiereError(f"{lacking} has no index; make it: lumiere data shards {address}")
        clips: list[ClipEntry] = []
        skipped: dict[str, str] = {}
        for shard in shards:
            for line in storage.read(_index_of(shard)).decode().splitlines():
                clip = _entry(shard, json.loads(line))
                if clip.info.duration < needed_seconds(num_frames, fps):
                    skipped[f"{shard}: {clip.path}"] = f"too short: {clip.info.duration:.2f} s"
                else:
                    clips.append(clip)
        if not clips:
            reason = next((f": {name} is {why}" for name, why in skipped.items()), "; see lumiere data shards --help")
            raise LumiereError(f"no usable clip in {address}{reason}")
        super().__init__(
            FolderReport(Path(address), clips, skipped), size=size, num_frames=num_frames, fps=fps, seed=seed
        )

    @contextmanager
    def _file(self, clip: ClipEntry) -> Iterator[Path]:
        assert isinstance(clip, ShardedClip)
        # Opened anew: a process that was forked off needs connections of its own.
        data = _Storage(self.address).read(clip.shard, clip.offset, clip.offset + clip.size)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / clip.path.name
            file.write_bytes(data)
            try:
                yield file
            except LumiereError as error:
                told = str(error).replace(str(file), f"{clip.path} of {clip.shard} in {self.address}")
                raise LumiereError(told) from error


def _entry(shard: str, line: dict[str, Any]) -> ShardedClip:
    return ShardedClip(
        Path(line["name"]), tuple(line["captions"]), ClipInfo(**line["info"]), Boxes.read(line),
        shard=shard, offset=line["offset"], size=line["size"],
    )  # fmt: skip

"""A comparison from its plan to its page: clips, measures, distances from real clips, and a study ready to serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from openlumiere import files
from openlumiere.errors import LumiereError
from openlumiere.evaluation.features.cache import Extraction
from openlumiere.evaluation.features.clip_sets import ClipFile
from openlumiere.evaluation.protocols.distributions import FVDSettings, fvd
from openlumiere.evaluation.scores import versions
from openlumiere.generation.backends.base import Loading
from openlumiere.study.pairs import Study, create_study
from openlumiere.video import read_metadata

from .entries import Entry
from .making import Failure, make_clips
from .measures import MEASURES, measured, summarize, write_tables
from .page import write_page
from .plan import STUDY, Plan, read_record
from .prompts import Shot

FEATURE_SIZE = 256  # pixels of the square that FVD's published features see

# What a clip's metadata say of the model that made it.
_FACTS = ("model", "weights", "licence", "device", "dtype", "num_inference_steps", "guidance_scale", "openlumiere")


@dataclass(frozen=True, kw_only=True)
class Real:
    """Real clips to measure the Fréchet video distance from.

    Attributes:
        folder: of clips, or a .tar of them.
        settings: see `distributions.FVDSettings`.
    """

    folder: Path
    settings: FVDSettings = field(default_factory=FVDSettings)

    def check(self) -> None:
        """Refuse what is not there, before clips are made."""
        if not self.folder.exists():
            raise LumiereError(f"there are no real clips in {self.folder}; check --real")
        self.settings.network()


def compare(
    plan: Plan,
    loading: Loading,
    *,
    ours: str = "",
    real: Real | None = None,
    command: str = "",
    report: Callable[[str], None] = print,
    progress: bool = True,
) -> list[Failure]:
    """Make a comparison, or go on with one that was stopped.

    Args:
        loading: how models are loaded, where their entries do not say otherwise.
        ours: name of the entry that the study is about; "" = no study.
        command: makes the comparison again; stands on its page.
        report: told in lines what happens.

    Returns:
        The clips that could not be made.

    Raises:
        LumiereError: no clip could be made, none can be written, or a study of other clips is in the way.
    """
    if ours:
        plan.entry(ours)
    if real is not None:
        real.check()
    failures = make_clips(plan, loading, report=report, progress=progress)
    found = make_report(plan, failures, real=real, command=command, progress=progress)
    if not found["clips"]:
        raise LumiereError(f"no clip could be made: {failures[0].reason if failures else 'none was asked for'}")
    write_tables(found, plan.folder)
    write_page(found, plan.folder)
    report(f"wrote {plan.folder / 'index.html'}, comparison.json, measures.csv and clips.csv")
    if ours:
        make_study(plan, ours, report=report, progress=progress)
    return failures


def make_report(
    plan: Plan,
    failures: Sequence[Failure] = (),
    *,
    real: Real | None = None,
    command: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the clips that are there; see `compare`."""
    reasons = {(failure.entry.name, failure.shot): failure.reason for failure in failures}
    clips, entries, missing = [], [], []
    bar = tqdm(total=len(plan.entries) * len(plan.shots), desc="measuring", unit="clip", disable=not progress)
    for entry in plan.entries:
        own = []
        for shot in plan.shots:
            one = measured(plan, entry, shot)
            bar.update()
            if one is not None:
                own.append((shot, one))
                file = plan.clip(entry, shot)
                assert file is not None  # as it was measured
                where = {"name": entry.name, "prompt": shot.prompt, "seed": None if entry.clips else shot.seed}
                clips.append({**where, "file": file.relative_to(plan.folder).as_posix(), **one})
            elif not entry.clips or shot.index == 0:
                why = reasons.get((entry.name, shot), "not in its folder" if entry.clips else "not made")
                missing.append({"name": entry.name, "prompt": shot.prompt, "seed": shot.seed, "reason": why})
        entries.append(_described(plan, entry, own))
    bar.close()
    if real is not None:  # after the bar, as features have bars of their own
        for entry, described in zip(plan.entries, entries, strict=True):
            described["fvd"] = _distance(plan, entry, real, progress=progress)
    return {
        "prompts": len({shot.key for shot in plan.shots}), "seeds": 1 + max(shot.index for shot in plan.shots),
        "shots": [{"prompt": shot.prompt, "seed": shot.seed, "index": shot.index} for shot in plan.shots],
        "measures": {
            name: {"title": each.title, "unit": each.unit, "meaning": each.meaning, "digits": each.digits}
            for name, each in MEASURES.items()
        },
        "entries": entries, "clips": clips, "missing": missing, "command": command, "versions": versions(),
    }  # fmt: skip


def _described(plan: Plan, entry: Entry, own: Sequence[tuple[Shot, Mapping[str, Any]]]) -> dict[str, Any]:
    """What is known of an entry: where its clips come from, their shapes, and its measures."""
    abilities = plan.abilities.get(entry.name)
    shapes = [one["shape"] for _, one in own]
    facts: dict[str, Any] = {}
    changes: set[str] = set()
    for shot, _ in own:
        clip = plan.clip(entry, shot)
        assert clip is not None
        metadata = read_metadata(clip)
        for name in _FACTS:
            if metadata.get(name) not in (None, ""):
                facts.setdefault(name, []).append(metadata[name])
        record = read_record(plan.record(entry, shot))
        changes.update(record.get("changes", []))
        facts.setdefault("peak_of", []).append(record.get("peak_of", ""))
    return {
        "name": entry.name, "model": entry.model, "from_clips": entry.clips,
        "text": plan.follows_text(entry), "starts_from": entry.picture_from or entry.pictures or "",
        "licence": "" if abilities is None else abilities.licence,
        "commercial": None if abilities is None else abilities.commercial,
        "facts": {name: sorted(set(map(str, values)) - {""}) for name, values in facts.items()},
        "shapes": [dict(shape) for shape in {tuple(shape.items()) for shape in shapes}],
        "clips": len(own), "changes": sorted(changes), "measures": summarize(own),
        "fvd": None,
    }  # fmt: skip


def _distance(plan: Plan, entry: Entry, real: Real, *, progress: bool) -> dict[str, Any] | None:
    """FVD of an entry's clips, or why there is none; None without clips."""
    wanted = [plan.clip(entry, shot) for shot in plan.shots if plan.is_wanted(entry, shot)]
    listed = [ClipFile(path.name, path, path.suffix) for path in wanted if path is not None]
    if not listed:
        return None
    try:
        score = fvd(str(real.folder), listed, None, real.settings, Extraction(progress=progress))
    except LumiereError as error:
        return {"failed": files.one_line(error)}
    counts = {name: side["clips"] for name, side in score.protocol["sets"].items()}
    return {
        "metric": score.metric, "value": score.value, "interval_95": list(score.interval_95), "clips": counts,
        "notes": score.notes, "protocol": score.protocol,
    }  # fmt: skip


def list_prompts(plan: Plan, entry: Entry) -> int:
    """Write ``prompts.csv`` beside an entry's clips: the first of each prompt, as a study takes them; return how many.

    A model without a prompt has none in its clips' metadata, and file names do not say all of it.
    """
    import csv
    import io

    rows = [["file", "prompt"]]
    for shot in plan.shots:
        clip = plan.clip(entry, shot)
        if clip is not None and shot.index == 0:
            rows.append([clip.name, shot.prompt])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    files.write_text(plan.folder / entry.folder / "prompts.csv", text.getvalue())
    return len(rows) - 1


def make_study(
    plan: Plan,
    ours: str,
    output: Path | None = None,
    *,
    report: Callable[[str], None] = print,
    progress: bool = True,
    **options: Any,
) -> Study | None:
    """Make a study of an entry against all others; one that is there stays, as it may have answers.

    The question of the text is left out for entries without a prompt.

    Args:
        output: its folder; None = ``study`` in the comparison's.
        options: further ones of `create_study`.

    Raises:
        LumiereError: as `create_study`.
    """
    output = output or plan.folder / STUDY
    if output.exists():
        report(f"{output} is there already and stays as it is; delete it to make it of these clips")
        return None
    counts = {entry.name: list_prompts(plan, entry) for entry in plan.entries}
    for name in [name for name, count in counts.items() if not count and name != ours]:
        report(f"{name} takes no part in the study: it has no clips")
    others = {
        entry.name: plan.folder / entry.folder for entry in plan.entries if counts[entry.name] and entry.name != ours
    }
    own = plan.entry(ours)
    untold = [entry.name for entry in plan.entries if not plan.follows_text(entry)]
    # Where ours is not told the prompt, no comparison is about the text.
    unasked = list(others) if ours in untold else [name for name in untold if name in others]
    study = create_study(
        plan.folder / own.folder, others, output,
        name=ours, no_text_question=unasked, progress=progress, **options,
    )  # fmt: skip
    report(f"wrote {output}; next: lumiere study serve {output}")
    return study

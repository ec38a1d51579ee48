"""`lumiere study`: people compare our clips with others', two at a time."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from openlumiere import extras

from . import compare, options, parsing, running
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    study = add_command(
        commands,
        "study",
        lambda _args: None,  # a subcommand is required, and has its own
        help="let people compare clips with another method's, two at a time",
        example=[
            "lumiere study create clips/ours --baseline Pika=clips/pika -o study",
            "lumiere study serve study",
            "lumiere study report study",
        ],
    )
    actions = study.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = add_command(
        actions,
        "create",
        run_create,
        help="pair the clips of two or more folders, or models, by prompt, and make them alike",
        more="A clip's prompt is what prompts.csv (file,prompt) in its folder says, or what lumiere generate wrote "
        "into it, or its name. Clips without a partner are left out, counted and named. Where a model is named, its "
        "clips of --prompts are made first, as lumiere compare does, and kept in OUTPUT.clips.",
        example=[
            "lumiere study create clips/ours --baseline Pika=clips/pika --baseline Gen-2=clips/gen2 -o study",
            "lumiere study create clips/ours --baseline SVD=clips/svd --no-text-question SVD -o study",
            "lumiere study create --model emoji --baseline Few=FOLDER_OR_HUB_ID --baseline Pika=clips/pika "
            "--prompts prompts.txt -o study",
        ],
    )
    create.add_argument("ours", type=Path, nargs="?", metavar="FOLDER", help="our clips; or give --model")
    create.add_argument("--model", help="ours, instead of a folder of its clips: as lumiere generate takes it")
    create.add_argument(
        "--baseline", action="append", default=[], type=_baseline, metavar="NAME=FOLDER|MODEL", required=True,
        help="another method's clips, or a model; may be given several times",
    )  # fmt: skip
    create.add_argument("--prompts", type=Path, metavar="FILE", help="what models are asked for, one prompt a line")
    create.add_argument("-o", "--output", required=True, type=Path, help="the study's folder")
    create.add_argument("--name", default="Ours", help="what reports call our method, default: Ours")
    create.add_argument("--title", default="Which video is better?", help="what raters read first")
    create.add_argument(
        "--no-text-question", action="append", default=[], metavar="NAME",
        help="do not ask which clip of this baseline's matches the text better",
    )  # fmt: skip
    create.add_argument(
        "--pairs-per-rater", type=parsing.positive_int, default=20, metavar="N", help="default: 20, or all there are"
    )
    create.add_argument("--checks", type=parsing.whole, default=3, help="attention checks a rater, default: 3")
    create.add_argument(
        "--fps", type=_rate, default="lower", metavar="lower|higher|N", help="rate of a pair's clips, default: lower"
    )
    create.add_argument("--fit", choices=["crop", "pad"], default="crop", help="to one frame, default: crop")
    create.add_argument("--background", default="white", help="behind transparent clips, default: white")
    create.add_argument("--seed", type=parsing.seed, default=0, help="also of models' clips; default: 0")
    compare.add_making(create)

    serve = add_command(
        actions,
        "serve",
        run_serve,
        help="serve the page on which raters answer",
        more="Answers go into answers.sqlite in the study's folder. The page is plain HTTP: for raters elsewhere, put "
        "a server that speaks HTTPS before it.",
        example=["lumiere study serve study", "lumiere study serve study --port 8080"],
    )
    serve.add_argument("study", type=Path, metavar="STUDY", help="folder that lumiere study create wrote")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on, default: 127.0.0.1, this machine")
    serve.add_argument("--port", type=parsing.port, default=8000, help="default: 8000; 0 takes any free one")
    serve.add_argument("--max-raters", type=parsing.positive_int, default=5000, metavar="N", help="default: 5000")

    report = add_command(
        actions,
        "report",
        run_report,
        help="say what raters preferred, and how sure that is",
        more="Win rates with intervals, tests, agreement, and a plot. Raters who failed more than a share of their "
        "attention checks are left out, and counted.",
        example=["lumiere study report study", "lumiere study report study -o runs/preference --max-failed 0.34"],
    )
    report.add_argument("study", type=Path, metavar="STUDY", help="folder that lumiere study create wrote")
    report.add_argument("-o", "--output", type=Path, help="folder for the report, default: STUDY/report")
    report.add_argument(
        "--max-failed", type=parsing.fraction, default=0.2, metavar="0..1", help="share of checks, default: 0.2"
    )

    mturk = add_command(
        actions,
        "mturk",
        run_mturk,
        help="write a HIT for Amazon Mechanical Turk, and a table of its assignments",
        more="Nothing is sent: aws mturk create-hit --cli-input-json file://hit/hit.json does that. Run it again after "
        "the HIT for the assignments' state.",
        example=["lumiere study mturk study --url https://study.example.org/ -o hit"],
    )
    mturk.add_argument("study", type=Path, metavar="STUDY", help="folder that lumiere study create wrote")
    mturk.add_argument("--url", required=True, help="where workers reach lumiere study serve, over HTTPS")
    mturk.add_argument("-o", "--output", required=True, type=Path, help="folder for the files")
    mturk.add_argument("--reward", type=_dollars, default="2.00", metavar="DOLLARS", help="a rater, default: 2.00")
    mturk.add_argument(
        "--raters", type=parsing.positive_int, help="default: as give 400 answers to each baseline's question"
    )
    mturk.add_argument("--minutes", type=parsing.positive_int, default=45, help="for one rater, default: 45")
    mturk.add_argument("--days", type=parsing.positive_int, default=7, help="the HIT stays open, default: 7")


def _baseline(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER or NAME=MODEL")
    return name, source


def _rate(text: str) -> float | str:
    return text if text in ("lower", "higher") else parsing.positive_float(text)


def _dollars(text: str) -> str:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,2})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount such as 2.50")
    return f"{float(text):.2f}"


def run_create(args: argparse.Namespace) -> int:
    from openlumiere.comparison.entries import is_clip_folder
    from openlumiere.errors import LumiereError
    from openlumiere.study.pairs import create_study

    names = [name for name, _ in args.baseline]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise LumiereError(f"two baselines are named {twice!r}; give them different names")
    if (args.ours is None) == (args.model is None):
        raise LumiereError("say which clips are ours: either a folder, or --model")
    ours, failures = args.ours, 0
    baselines: dict[str, Path | str] = dict(args.baseline)
    untold: list[str] = []
    models = {name: source for name, source in args.baseline if not is_clip_folder(source)}
    if args.model or (models and args.prompts):
        ours, made, untold, failures = _make_clips(args, models)
        baselines |= made
    study = create_study(
        ours, {name: Path(source) for name, source in baselines.items()}, args.output,
        name=args.name, title=args.title, no_text_question=[*args.no_text_question, *untold],
        pairs_per_rater=args.pairs_per_rater, checks=args.checks, fps=args.fps, how=args.fit,
        background=args.background, seed=args.seed,
    )  # fmt: skip
    for label, baseline in study.baselines.items():
        print(f"{label}: {baseline.pairs} pairs, questions: {', '.join(baseline.questions)}")
        for why, files in baseline.left_out.items():
            more = f" and {len(files) - 5} more, see study.json" if len(files) > 5 else ""
            print(f"  {len(files)} {why}: {', '.join(files[:5])}{more}")
    print(
        f"each rater sees {study.shown} pairs, {len(study.checks)} of them attention checks; "
        f"{study.raters_for()} raters give about 400 answers to each baseline's question"
    )
    print(f"wrote {args.output}; next: lumiere study serve {args.output}")
    return compare.ended(failures, args)


def _make_clips(args: argparse.Namespace, models: dict[str, str]) -> tuple[Path, dict[str, Path], list[str], int]:
    """Our folder of clips, the models' by name, those that are not told the prompt, and how many clips failed."""
    from openlumiere.comparison.compare import list_prompts
    from openlumiere.comparison.entries import Entry, Options, overridden, with_defaults
    from openlumiere.comparison.making import make_clips
    from openlumiere.comparison.plan import make_plan
    from openlumiere.comparison.prompts import read_shots
    from openlumiere.errors import LumiereError

    if args.output.exists():
        raise LumiereError(f"{args.output} exists; choose another name, or delete it if its answers are not needed")
    if args.prompts is None:
        raise LumiereError("say what the models are asked for: --prompts FILE, one prompt a line")
    of_all = overridden(Options(), **compare.asked_of_all(args))
    own = [] if args.model is None else [Entry(name=args.name, model=args.model)]
    entries = with_defaults([*own, *(Entry(name=name, model=model) for name, model in models.items())], of_all)
    plan = make_plan(
        args.output.with_name(f"{args.output.name}.clips"), entries, read_shots(args.prompts, seed=args.seed),
        pictures=args.pictures, picture_from=args.picture_from,
    )  # fmt: skip
    running.silence_libraries(args.debug)
    failures = make_clips(plan, options.loading(args), report=compare.say)
    folders = {}
    for entry in plan.entries:
        if not list_prompts(plan, entry):
            raise LumiereError(f"{entry.name}: no clip could be made: {failures[0].reason}")
        folders[entry.name] = plan.folder / entry.folder
    untold = {entry.name for entry in plan.entries if not plan.follows_text(entry)}
    if args.model and args.name in untold:  # then no comparison is about the text
        untold = {name for name, _ in args.baseline}
    ours = folders.pop(args.name) if args.model else args.ours
    return ours, folders, sorted(untold - set(args.no_text_question)), len(failures)


def run_serve(args: argparse.Namespace) -> None:
    extras.require("fastapi", "uvicorn")
    from openlumiere.study.pairs import load_study
    from openlumiere.study.server import serve

    serve(load_study(args.study), host=args.host, port=args.port, max_raters=args.max_raters)


def run_report(args: argparse.Namespace) -> None:
    extras.require("matplotlib")
    from openlumiere.study.statistics import markdown, report_study

    output = args.output or args.study / "report"
    print(markdown(report_study(args.study, output, max_failed=args.max_failed)), end="")
    print(f"wrote {output}")


def run_mturk(args: argparse.Namespace) -> None:
    from openlumiere.study.mturk import export
    from openlumiere.study.pairs import load_study

    written = export(
        load_study(args.study), args.url, args.output,
        reward=args.reward, raters=args.raters, minutes=args.minutes, days=args.days,
    )  # fmt: skip
    for path in written:
        print(f"wrote {path}")

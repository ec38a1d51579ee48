"""From requests to printed lines: the model is loaded, clips are made one after the other."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Sequence

from openlumiere.generation.backends.base import Backend
from openlumiere.generation.backends.find import load_backend
from openlumiere.generation.requests import Request

from . import marking, options
from .progress import ProgressBars, Stopwatch, bar


def make_all(
    requests: Sequence[Request],
    args: argparse.Namespace,
    *,
    about: Callable[[Request], str],
) -> None:
    """Make clips with the model that `args` name, and print where they are and what each stage took.

    Args:
        about: what is printed of each of several clips before it is made.
    """
    watch = Stopwatch()
    marker = marking.marker(args)  # first: without keys nothing slow is begun
    model = _load(args, watch)
    from openlumiere.generation.make import make

    bars = ProgressBars(watch)
    for number, request in enumerate(requests, 1):
        if len(requests) > 1:
            print(f"clip {number} of {len(requests)}: {about(request)}", flush=True)
        try:
            made = make(request, model, marker=marker, progress=bars)
        finally:
            bars.close()
        for change in made.changes:
            print(options.in_options(change))
        note = f": {made.note}" if made.note else ""
        print(f"wrote {request.output} (seed {made.recipe.request.seed}){note}", flush=True)
    print(watch.report())


def _load(args: argparse.Namespace, watch: Stopwatch) -> Backend:
    with watch.stage("load"), bar("loading", 3, "part") as progress:
        import torch  # noqa: F401

        progress.update()
        silence_libraries(args)
        progress.update()
        model = load_backend(args.model, options.loading(args))
        progress.update()
    for note in model.notes:
        print(note, flush=True)
    return model


def silence_libraries(args: argparse.Namespace) -> None:
    """Keep libraries from telling about themselves, and from bars beside ours."""
    from diffusers.utils.logging import disable_progress_bar

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    if not args.debug:
        warnings.simplefilter("ignore")
    disable_progress_bar()

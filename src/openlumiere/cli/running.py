"""From requests to printed lines: the model is loaded, clips are made one after the other."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from openlumiere.generation.models import LoadedModel
from openlumiere.generation.requests import Request

from .progress import ProgressBars, Stopwatch, bar


def make_all(
    requests: Sequence[Request],
    args: argparse.Namespace,
    *,
    about: Callable[[Request], str],
    loader: str = "load_pipeline",
) -> None:
    """Make clips with the model that `args` name, and print where they are and what each stage took.

    Args:
        about: what is printed of each of several clips before it is made.
        loader: a function of `pipelines.load`.
    """
    watch = Stopwatch()
    model = _load(loader, args, watch)
    from openlumiere.generation.make import make

    bars = ProgressBars(watch)
    for number, request in enumerate(requests, 1):
        if len(requests) > 1:
            print(f"clip {number} of {len(requests)}: {about(request)}", flush=True)
        try:
            made = make(request, model, progress=bars, window_batch_size=args.batch, offload_frames=args.offload)
        finally:
            bars.close()
        note = f": {made.note}" if made.note else ""
        print(f"wrote {request.output} (seed {made.recipe.request.seed}){note}", flush=True)
    print(watch.report())


def _load(loader: str, args: argparse.Namespace, watch: Stopwatch) -> LoadedModel:
    with watch.stage("load"), bar("loading", 3, "part") as progress:
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        if not args.debug:
            warnings.simplefilter("ignore")  # of libraries, about themselves
        import torch  # noqa: F401

        progress.update()
        from diffusers.utils.logging import disable_progress_bar

        from openlumiere.pipelines import load as loaders

        disable_progress_bar()  # one bar at a time

        progress.update()
        pipe: Any = getattr(loaders, loader)(args.model, device=args.device, dtype=args.dtype)
        progress.update()
    pipe.set_progress_bar_config(disable=True)
    return LoadedModel(args.model, pipe)

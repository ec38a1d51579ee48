"""An estimate as tables for the terminal."""

from __future__ import annotations

from openlumiere.tables import plain_table

from .estimate import Estimate, Making, Training
from .hardware import Hardware

_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def describe(found: Estimate, *, with_levels: bool = False) -> str:
    """Return an estimate as text."""
    clip = f"{found.num_frames} frames, " if found.num_frames > 1 else ""
    parts = [f"{found.model}: {clip}{found.width}x{found.height}, batch {found.batch}", hardware_line(found.hardware)]
    rows = [["parameters", *found.parameters]]
    rows.append(["", *(millions(count) for count in found.parameters.values())])
    parts.append(plain_table(rows))
    if found.forward_flops:
        parts.append(f"one evaluation of a clip: {flops(found.forward_flops)}")
    if with_levels and found.levels:
        parts.append(_levels(found))
    if found.making is not None:
        parts.append(_making(found.making, found))
    if found.training is not None:
        parts.append(_training(found.training, found))
    notes = [f"note: {note}" for note in found.notes]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def hardware_table(table: dict[str, Hardware]) -> str:
    """Return the known hardware as a table."""
    rows = [["name", "float32", "bfloat16", "memory", "bandwidth", "to others of a node", "between nodes", "source"]]
    for device in table.values():
        half = f"{device.peak['bfloat16'] / 1e12:g} TFLOP/s" if "bfloat16" in device.peak else "-"
        links = [f"{speed / 1e9:g} GB/s" if speed else "-" for speed in (device.link, device.network)]
        rows.append([
            device.name, f"{device.peak['float32'] / 1e12:g} TFLOP/s", half, f"{device.memory / 1e9:g} GB",
            f"{device.bandwidth / 1e9:g} GB/s", *links, device.source,
        ])  # fmt: skip
    share = next(iter(table.values())).utilisation
    return (
        f"{plain_table(rows)}\n\nassumed of all: {share:.0%} of these FLOP/s are reached (--utilisation); "
        'without --hardware, or with "here", this machine is measured'
    )


def hardware_line(device: Hardware) -> str:
    """Return what is taken for true of a device, in one line."""
    kind = "bfloat16" if "bfloat16" in device.peak else "float32"
    known = "measured" if device.measured else "assumed"
    return (
        f"on {device.name} ({device.source or 'own figures'}): {flops(device.peak[kind])}/s in {kind}, "
        f"of which {device.utilisation:.0%} is reached ({known}); {gigabytes(device.memory)}, "
        f"{device.bandwidth / 1e9:.4g} GB/s"
    )


def _levels(found: Estimate) -> str:
    rows = [["level", "frames", "size", "channels", "frozen", "added", "FLOPs", "share"]]
    total = sum(row.flops for row in found.levels)
    for index, row in enumerate(found.levels):
        rows.append([
            str(index), str(row.frames), f"{row.size}x{row.size}", str(row.channels), millions(row.frozen),
            millions(row.added), flops(row.flops), f"{row.flops / total:.0%}",
        ])  # fmt: skip
    return plain_table(rows)


def _making(found: Making, whole: Estimate) -> str:
    rows = [["making a clip", "memory, at most at once", f"fits into {gigabytes(whole.hardware.memory)}"]]
    rows += [[name, gigabytes(size), _yes(size <= whole.hardware.memory)] for name, size in found.memory.items()]
    more = [
        f"{name} {flops(count)}"
        for name, count in (("decoding", found.decode_flops), ("second stage", found.second_stage_flops)) if count
    ]  # fmt: skip
    guided = f"guidance {found.guidance:g}" if found.guidance > 1 else "no guidance"
    lines = [
        plain_table(rows), "",
        f"a step, {guided}, {found.dtype}: {flops(found.step_flops)}, {duration(found.step_seconds)}"
        + (f"; {', '.join(more)}" if more else ""),
        f"a {'batch' if whole.batch > 1 else 'clip'} of {_steps(found)}: {duration(found.clip_seconds)}"
        + (f", {money(found.cost)} a clip" if found.cost is not None else ""),
    ]  # fmt: skip
    if found.fits is None:
        lines.append("nothing fits: choose a smaller clip, or other hardware")
    return "\n".join(lines)


def _steps(found: Making) -> str:
    if found.steps_taken == found.steps:
        return f"{found.steps} steps"
    return f"{found.steps} steps, of which {found.steps_taken} are left after a picture of the prompt"


def _training(found: Training, whole: Estimate) -> str:
    rows = [["training, each process", "weights", "optimizer, average", "gradients", "activations", "at once", "fits"]]
    for row in found.memory:
        mark = " <-" if row.name == found.way else ""
        sizes = (row.weights, row.state, row.gradients, row.activations, row.total)
        rows.append([row.name + mark, *map(gigabytes, sizes), _yes(row.total <= whole.hardware.memory)])
    together = f" on {found.devices} devices, {found.batch * found.devices} in all" if found.devices > 1 else ""
    lines = [
        plain_table(rows), "* not in lumiere train; <- what is counted on below", "",
        f"trains {millions(whole.trained or 0)}; a step of {found.batch}{together}, {found.optimizer}: "
        f"{flops(found.step_flops)} a device, {duration(found.step_seconds)}",
    ]  # fmt: skip
    if found.devices > 1:
        lines.append(
            f"computing {duration(found.compute_seconds)}, sending {duration(found.send_seconds)}: the longer counts"
        )
    if found.seconds is not None:
        price = f", {money(found.cost)}" if found.cost is not None else ""
        lines.append(f"a training of {found.steps} steps: {duration(found.seconds)}{price}")
    if not found.fits:
        lines.append("does not fit: choose a smaller batch or clip, more --devices, or other hardware")
    return "\n".join(lines)


def _yes(fits: bool) -> str:
    return "yes" if fits else "no"


def flops(count: float) -> str:
    """Return FLOPs in the unit that suits them."""
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e6:.3g} MFLOP"


def millions(count: int) -> str:
    """Return a number of parameters."""
    return f"{count / 1e6:.2f} M"


def gigabytes(size: float) -> str:
    """Return bytes."""
    return f"{size / 1e9:.2f} GB"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, size in (("days", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def money(amount: float) -> str:
    """Return a price, in the currency that --price was in."""
    return f"cost {amount:,.2f}" if amount >= 1 else f"cost {amount:.2g}"

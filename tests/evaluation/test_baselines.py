"""The comparison with a cascade and a fixed frame rate; what it measures, and X-T slices."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import processes
import tiny
from openlumiere.cli import main
from openlumiere.data.emoji.drawing import draw
from openlumiere.data.emoji.scenes import Scene
from openlumiere.errors import LumiereError
from openlumiere.evaluation.memory import peak_memory_mib
from openlumiere.evaluation.metrics.bootstrap import percentile_interval
from openlumiere.evaluation.metrics.periodicity import PERIODS, is_still, keeps_to_axis, periodicity_error, swing
from openlumiere.evaluation.metrics.tracks import centres
from openlumiere.evaluation.protocols.baseline_methods import REAL, Method, make_in_own_process, sample_cascade
from openlumiere.evaluation.protocols.baselines import evaluate_baselines, markdown
from openlumiere.evaluation.protocols.xt import draw_slices, liveliest, xt_slice
from openlumiere.video import write_clip
from tiny_judges import hasty_judges, square

pytestmark = pytest.mark.slow  # whole protocols


def clip_of(motion: str, *, period: float | None = None, phase: float = 0.0) -> np.ndarray:
    scene = Scene("tiger", "blue", "medium", "center", motion, "a tiger", (0.5, 0.5, 0.0), period, phase)
    return (draw(scene, square(), size=32, num_frames=80)[0].permute(1, 2, 3, 0).numpy() + 1) / 2


# ------------------------------------------------------------------------------------------------ periodicity


def test_the_centre_follows_the_subject() -> None:
    x, y = centres(clip_of("right")).T
    assert np.diff(x).min() > -0.01
    assert x[-1] - x[0] > 0.5
    assert np.ptp(y) < 0.1


@pytest.mark.parametrize(("factor", "phase"), [(0.5, 0.3), (0.7, 0.8), (1.0, 0.0)])
@pytest.mark.parametrize("motion", PERIODS)
def test_what_repeats_itself_has_no_error_and_what_is_shuffled_has_much(
    motion: str, factor: float, phase: float
) -> None:
    period = PERIODS[motion]
    clip = clip_of(motion, period=factor * period * 5, phase=phase)  # seconds
    exact = periodicity_error(clip, period)
    assert exact < 0.02
    shuffled = clip[np.random.default_rng(0).permutation(len(clip))]
    assert 0.4 < periodicity_error(shuffled, period) < 2
    # A cascade's fault: one of its windows loses the motion.
    broken = clip.copy()
    broken[25:45] = clip[25]
    assert periodicity_error(broken, period) > 3 * exact + 0.02


def test_what_goes_elsewhere_or_stays_does_not_repeat_itself() -> None:
    assert periodicity_error(clip_of("right"), 1 / 2) > 0.5
    assert periodicity_error(clip_of("right"), 1 / 4) > 0.5
    assert periodicity_error(clip_of("still"), 1 / 2) == 1


def test_a_motion_keeps_to_its_axis() -> None:
    for motion, other in (("sway", "bounce"), ("bounce", "sway")):
        clip = clip_of(motion, period=0.5)
        assert keeps_to_axis(clip, motion)
        assert not keeps_to_axis(clip, other)


def test_a_swing_says_how_far_a_motion_goes_where_the_error_says_only_whether_it_repeats() -> None:
    """A clip that hardly moves is told apart from one that moves without a period."""
    bounce = clip_of("bounce", period=1.25)
    top, low = np.quantile(centres(bounce)[:, 1], [0, 1])
    assert 0.2 < swing(bounce) / ((low - top) / 2) < 0.5  # of the whole way, in frame widths
    assert not is_still(swing(bounce))
    assert is_still(swing(clip_of("still")))
    shorter = np.concatenate([bounce[:40].repeat(2, 0)])
    assert swing(shorter) == pytest.approx(swing(bounce), rel=0.1)  # slower is no smaller


def test_intervals_hold_what_they_are_of() -> None:
    values = np.random.default_rng(1).exponential(size=60)
    for statistic in (np.mean, np.median):
        low, high = percentile_interval(values, statistic)
        assert values.min() < low < statistic(values) < high < values.max()
    few = percentile_interval(values[:10])
    assert few[1] - few[0] > np.subtract(*percentile_interval(values)[::-1])
    assert percentile_interval([1.0]) is None


# ------------------------------------------------------------------------------------------------ slices


def test_a_slice_is_a_row_or_a_column_over_time() -> None:
    clip = np.random.default_rng(0).integers(0, 255, (5, 4, 6, 3), dtype=np.uint8)
    assert np.array_equal(xt_slice(clip, 0.6), clip[:, 2])
    assert np.array_equal(xt_slice(clip, 1.0), clip[:, 3])
    assert np.array_equal(xt_slice(clip, 0.0, axis="column"), clip[:, :, 0])
    with pytest.raises(LumiereError, match="choose a row or a column"):
        xt_slice(clip, 1.5)


def test_the_liveliest_row_is_where_something_moves() -> None:
    clip = np.zeros((6, 10, 8, 3), np.uint8)
    clip[::2, 7] = 255
    assert liveliest(clip) == pytest.approx(0.75)
    assert liveliest(clip.swapaxes(1, 2), axis="column") == pytest.approx(0.75)


def test_slices_are_drawn_side_by_side(tmp_path: Path) -> None:
    moving = np.zeros((40, 16, 16, 3), np.uint8)
    for time in range(40):
        moving[time, 8, time % 16] = (255, 200, 0)
    half = moving[:20]
    draw_slices([moving, half], ["whole", "half"], tmp_path / "slices.png", at=0.5, side=64)
    page = np.asarray(Image.open(tmp_path / "slices.png"))
    columns = page[:, 12:76], page[:, 92:156]
    dots = [(column == (255, 200, 0)).all(-1).sum() for column in columns]
    # A frame of the whole clip is as high as one of the half, which therefore is half as high.
    assert dots[0] == pytest.approx(2 * dots[1], rel=0.15)
    with pytest.raises(LumiereError, match="give a label to each"):
        draw_slices([moving], [], tmp_path / "slices.png")


def test_the_command_draws_slices_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(clip_of("sway"), tmp_path / "sway.mp4", fps=16)
    write_clip(clip_of("still")[:40], tmp_path / "still.webp", fps=16)
    files = [str(tmp_path / name) for name in ("sway.mp4", "still.webp")]
    out = str(tmp_path / "out.png")
    assert main(["evaluate", "xt", *files, "-o", out]) == 0
    with Image.open(out) as picture:
        assert picture.size[0] > 2 * 256
    assert main(["evaluate", "xt", *files, "--column", "0.5", "--labels", "one", "-o", out]) == 2
    assert "1 labels for 2 clips" in capsys.readouterr().err
    assert main(["evaluate", "xt", files[0], "-o", str(tmp_path / "out.jpg")]) == 2
    assert "end the name in .png" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the comparison


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods' processes are forked off a server that has imported everything; real ones import for seconds."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: processes.context())


def test_a_cascade_keeps_its_keyframes() -> None:
    keyframes, between = tiny.conditioned(), tiny.conditioned()
    for pipe in (keyframes, between):
        pipe.register_to_config(window_frames=None)

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    keys = keyframes("a tiger", num_frames=10, generator=seeded(), upscale=False)[0][0]
    # The tiny network halves time, so its windows are even; windows of the real one are not.
    between.unet.frame_multiple = 1
    between.unet.temporal.downsamplers[0] = torch.nn.Identity()
    between.unet.temporal.upsamplers[0] = torch.nn.Identity()
    made = sample_cascade(keyframes, between, "a tiger", num_frames=20, generator=seeded())
    assert made.shape == (20, 16, 16, 3)
    np.testing.assert_allclose(made[::2], keys, atol=1e-5)
    assert np.abs(np.diff(made, axis=0)).max() > 0
    with pytest.raises(LumiereError, match="multiple of 2"):
        sample_cascade(keyframes, between, "a tiger", num_frames=19)


@pytest.mark.usefixtures("forked")
def test_motions_that_models_know_are_compared_alone(tmp_path: Path) -> None:
    pipe = tiny.conditioned()
    pipe.register_to_config(subjects=["tiger"])
    pipe.save_pretrained(tmp_path / "one")
    atlases = {"tiger": square("tiger")}
    judges = hasty_judges(atlases, tmp_path / "judges", num_frames=32)

    def run(motion: str) -> None:
        evaluate_baselines(
            [Method(name="one", model=str(tmp_path / "one"))], atlases, tmp_path / motion, motions=[motion], clips=3,
            num_frames=32, judges=judges, device="cpu", progress=False,
        )  # fmt: skip

    with pytest.raises(LumiereError, match=r"hardly any scene of sway .* within 1 s"):
        run("sway")  # the fastest takes 1.25 s
    run("bounce")
    real = [np.load(clip) for clip in (tmp_path / "bounce" / "methods" / "real-clips").rglob("*.npy")]
    assert len(real) == 3  # once, since no other motions are asked for
    assert not any(is_still(swing(clip)) for clip in real)


@pytest.mark.usefixtures("forked")
def test_the_comparison_writes_what_it_promises(tmp_path: Path) -> None:
    pipe = tiny.conditioned()
    pipe.register_to_config(subjects=["tiger", "heart"])
    for name in ("one", "other"):
        pipe.save_pretrained(tmp_path / name)
    atlases = {key: square(key) for key in ("tiger", "heart")}
    judges = hasty_judges(atlases, tmp_path / "judges", num_frames=32)
    methods = [Method(name="one", model=str(tmp_path / "one"))]

    def run(**options: object) -> dict:
        given = {"clips": 2, "num_frames": 32, "judges": judges, "device": "cpu", "progress": False} | options
        return evaluate_baselines(methods, atlases, tmp_path / "report", **given)

    run()
    first = tmp_path / "report" / "methods" / "one" / "clips" / "general" / "00000.npy"
    before = first.stat().st_mtime_ns
    methods.append(Method(name="the other", model=str(tmp_path / "other")))
    report = run()
    assert first.stat().st_mtime_ns == before  # a method that joins in later leaves the others' clips alone
    written = (tmp_path / "report" / "baselines.json").read_text()
    assert json.loads(written) == json.loads(json.dumps(report))
    one, other, real = (report["methods"][name] for name in ("one", "the other", REAL))
    # The same model under two names makes the same clips of the same scenes.
    for figure in ("subject", "motion", "fvd_emoji", "periodicity_errors"):
        assert one[figure] == other[figure]
    assert one["fvd_emoji"] > 0
    assert one["peak_mib"] > 100
    assert one["seconds"] > 0
    assert real["periodicity_error"] < 0.1
    assert (real["still"], real["along_axis"], real["amplitude"], real["amplitudes"]) == (0, 1, 1, [1, 1])
    assert real["periodicity_error_moving"] == real["periodicity_error"]
    assert one["still"] == 1 or one["periodicity_error_moving"] is not None
    assert one["amplitudes"] == other["amplitudes"]
    assert len(one["intervals_95"]["still"]) == 2
    assert real["seconds"] is None
    assert "| periodicity error (less is better), swaying and bouncing |" in markdown(report)
    assert "| still clips, swaying and bouncing | " in markdown(report)
    with Image.open(tmp_path / "report" / "slices-0.png") as picture:
        assert picture.width > 3 * 256

    made = sorted((tmp_path / "report" / "methods").rglob("*.npy"))
    assert len(made) == 3 * 4
    kept = {path: path.stat().st_mtime_ns for path in made}
    short = run(periods=(0.3, 0.5))  # of clips of two seconds
    assert {path: path.stat().st_mtime_ns for path in made} == kept
    assert len(sorted((tmp_path / "report" / "methods").rglob("*.npy"))) == len(made) + 3 * 2
    assert "| still clips, periods of 0.3 to 0.5 s |" in markdown(short)
    assert short["methods"][REAL]["chosen_amplitude"] == 1
    assert short["methods"][REAL]["chosen_periodicity_error"] < 0.1
    assert short["methods"]["one"]["periodicity_errors"] == one["periodicity_errors"]
    run()
    assert (tmp_path / "report" / "baselines.json").read_text() == written
    assert {path: path.stat().st_mtime_ns for path in made} == kept
    with pytest.raises(LumiereError, match="another seed"):
        run(seed=1)
    with pytest.raises(LumiereError, match="another dtype"):
        run(dtype="bfloat16")
    with pytest.raises(LumiereError, match="show no period twice"):
        run(num_frames=16)
    with pytest.raises(LumiereError, match="another motions"):
        run(motions=["sway"])
    with pytest.raises(LumiereError, match="no motion is called 'flying'"):
        run(motions=["flying"])
    with pytest.raises(LumiereError, match="none of the motions repeats itself"):
        run(motions=["left", "right"])
    with torch.no_grad():
        next(pipe.unet.parameters()).add_(1.0)
    pipe.save_pretrained(tmp_path / "one")
    with pytest.raises(LumiereError, match="another weights_sha256"):
        run()
    with pytest.raises(LumiereError, match="names of their own"):
        evaluate_baselines([methods[0], methods[0]], atlases, tmp_path / "more", judges=judges)
    with pytest.raises(LumiereError, match="can be a folder's"):
        Method(name=REAL, model="emoji")


def test_clips_are_made_in_the_dtype_asked_for(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tiny.conditioned().save_pretrained(tmp_path / "one")
    scenes = {"general": [Scene("tiger", "blue", "medium", "center", "still", "a tiger", (0.5, 0.5, 0.0))]}
    method = Method(name="one", model=str(tmp_path / "one"))
    made = {}
    for dtype in ("float32", "bfloat16"):
        if dtype == "bfloat16":  # the first is in a new interpreter, as always outside of tests
            request.getfixturevalue("forked")
        make_in_own_process(method, scenes, tmp_path / dtype, num_frames=16, device="cpu", dtype=dtype, progress=False)
        made[dtype] = np.load(tmp_path / dtype / "methods" / "one" / "clips" / "general" / "00000.npy")
    difference = np.abs(made["float32"].astype(int) - made["bfloat16"]).mean()
    assert 0 < difference < 20


def test_the_comparison_runs_where_no_module_resource_is() -> None:
    """As on Windows; there psutil tells the peak, where it is installed."""
    code = (
        "import sys; sys.modules['resource'] = sys.modules['psutil'] = None\n"
        "import openlumiere.evaluation.protocols.baselines\n"
        "from openlumiere.evaluation.memory import peak_memory_mib\n"
        "sys.platform = 'win32'; assert peak_memory_mib() is None"  # only now: other packages look at it, too
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_methods_memory_is_its_own() -> None:
    ballast = np.ones(2**27)  # 1 GiB, which a child's `ru_maxrss` would start from
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        child = pool.apply(peak_memory_mib)
    assert 5 < child < ballast.nbytes / 2**20 < peak_memory_mib()

"""The Fréchet distance and the Inception Score against closed forms, other implementations and sampling theory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.errors import LumiereError
from openlumiere.evaluation.metrics.frechet import (
    Moments,
    bootstrap_interval,
    extrapolate,
    frechet,
    frechet_distance,
)
from openlumiere.evaluation.metrics.inception_score import inception_score
from openlumiere.evaluation.protocols.distributions import plot_bias


def sample(count: int, dimensions: int, *, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimensions)) * scale + shift


def exactly(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """Moments of that very mean and covariance."""
    moments = Moments(len(mean))
    moments.count, moments.mean, moments._scatter = 1.0e6, mean, covariance * 1.0e6
    return moments


def spread_matrix(dimensions: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    return turned @ np.diag(10.0 ** rng.uniform(-3, 3, dimensions)) @ turned.T


# Moments


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_moments_do_not_depend_on_how_features_come(parts: list[int], seed: int) -> None:
    features = sample(sum(parts) + 2, 3, seed=seed, shift=1e6)  # far from zero, where squares lose digits
    by_parts, start = Moments(3), 0
    for count in [*parts, 2]:
        other = Moments(3)
        other.add(features[start : start + count])
        by_parts.merge(other)
        start += count
    assert by_parts.count == len(features)
    np.testing.assert_allclose(by_parts.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(by_parts.covariance(ddof=1), np.cov(features.T), rtol=1e-6, atol=1e-8)


def test_weights_count_rows_so_many_times() -> None:
    features, weights = sample(6, 4), np.array([0, 1, 3, 0, 2, 1])
    weighted, repeated = Moments.of(features, weights.astype(float)), Moments.of(features.repeat(weights, axis=0))
    assert weighted.count == repeated.count == 7
    np.testing.assert_allclose(weighted.mean, repeated.mean)
    np.testing.assert_allclose(weighted.covariance(), repeated.covariance())


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    stored = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float32, (200_000, 16))
    stored[:] = np.random.default_rng(0).random(stored.shape, dtype=np.float32)
    tracemalloc.start()
    Moments.of(stored)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.5 * stored.nbytes


# Distance: closed forms


def test_distance_of_one_dimension() -> None:
    """(m1 - m2)^2 + (s1 - s2)^2."""
    one, other = exactly(np.array([1.0]), np.array([[4.0]])), exactly(np.array([-2.0]), np.array([[0.25]]))
    assert frechet_distance(one, other) == pytest.approx(3.0**2 + (2.0 - 0.5) ** 2)


def test_distance_of_matrices_that_commute() -> None:
    """Sum of (sqrt l1 - sqrt l2)^2 over common eigenvectors."""
    turned = np.linalg.qr(sample(6, 6))[0]
    first, second = np.array([5, 4, 3, 1e-9, 0, 0]), np.array([1, 0, 3, 1e6, 2, 0])
    moments = [exactly(np.zeros(6), turned @ np.diag(values) @ turned.T) for values in (first, second)]
    expected = ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-9)


def test_distance_of_a_linear_map_between_gaussians() -> None:
    """For S2 = A S1 A with A symmetric and positive, x -> A x is the best transport: tr S1 (A - 1)^2."""
    first, mapped = spread_matrix(5, 1), spread_matrix(5, 2)
    moments = exactly(np.zeros(5), first), exactly(np.zeros(5), mapped @ first @ mapped)
    away = mapped - np.eye(5)
    assert frechet_distance(*moments) == pytest.approx(np.trace(away @ first @ away), rel=1e-7)


@pytest.mark.parametrize("count", [5, 40, 400])
def test_a_set_is_at_no_distance_from_itself(count: int) -> None:
    features = sample(count, 40, shift=3.0)
    assert frechet(features, features[::-1]) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("count", "other"), [(7, 9), (7, 200), (3, 2)])
def test_distance_of_fewer_clips_than_dimensions(count: int, other: int) -> None:
    """The trace is the sum of singular values of X Y^T / sqrt(nm), which needs no square root of a matrix."""
    one, two = sample(count, 60, seed=1) @ spread_matrix(60, 3), sample(other, 60, seed=2, shift=0.1)
    x, y = one - one.mean(0), two - two.mean(0)
    shared = np.linalg.svd(x @ y.T, compute_uv=False).sum() / np.sqrt(count * other)
    mean = ((one.mean(0) - two.mean(0)) ** 2).sum()
    expected = mean + (x**2).sum() / count + (y**2).sum() / other - 2 * shared
    assert frechet(one, two) == pytest.approx(expected, rel=1e-9)


# Distance: others' formulas


@pytest.mark.parametrize("seed", [0, 1])
def test_distance_is_torch_fidelity_s_formula(seed: int) -> None:
    """torch-fidelity 0.4 sums real parts of square roots of the eigenvalues of S1 S2, covariances by N - 1."""
    one, two = sample(500, 24, seed=seed) @ spread_matrix(24, 5), sample(400, 24, seed=seed + 9, shift=0.3)
    first, second = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    trace = np.sqrt(np.linalg.eigvals(first @ second).astype(complex)).real.sum()
    apart = one.mean(0) - two.mean(0)
    expected = apart @ apart + np.trace(first) + np.trace(second) - 2 * trace
    assert frechet(one, two, ddof=1) == pytest.approx(expected, rel=1e-9)


def test_distance_is_stylegan_v_s_formula() -> None:
    """StyleGAN-V takes the real part of scipy's square root of S1 S2, covariances by N."""
    linalg = pytest.importorskip("scipy.linalg")
    one, two = sample(500, 24, seed=1) + 0.2, sample(400, 24, seed=2, scale=1.4)
    first, second = np.cov(one, rowvar=False, ddof=0), np.cov(two, rowvar=False, ddof=0)
    apart = one.mean(0) - two.mean(0)
    expected = apart @ apart + np.trace(first + second - 2 * np.real(linalg.sqrtm(first @ second)))
    assert frechet(one, two) == pytest.approx(expected, rel=1e-8)


def test_distance_and_score_are_torch_fidelity_s() -> None:
    """The package itself, where its need of torchvision can be met."""
    pytest.importorskip("torchvision")
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    import torch

    one, two = sample(300, 16, seed=1), sample(300, 16, seed=2, shift=0.5)
    statistics = [fid.fid_features_to_statistics(torch.from_numpy(features)) for features in (one, two)]
    expected = fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID]
    assert frechet(one, two, ddof=1) == pytest.approx(expected, rel=1e-9)
    found = isc.isc_features_to_metric(torch.from_numpy(one), splits=1)
    p = torch.from_numpy(one).softmax(1).numpy()
    assert inception_score(p, splits=1).mean == pytest.approx(found[isc.KEY_METRIC_ISC_MEAN], rel=1e-9)


# Interval and extrapolation


@pytest.mark.slow
def test_interval_holds_what_other_samples_of_as_many_clips_give() -> None:
    def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return sample(100, 4, seed=2 * seed), sample(100, 4, seed=2 * seed + 1, shift=0.4)

    expected = np.mean([frechet(*pair(seed)) for seed in range(1000, 1150)])
    intervals = [bootstrap_interval(*pair(seed), replicates=50, seed=seed) for seed in range(50)]
    held = np.mean([low <= expected <= high for low, high in intervals])
    assert 0.8 <= held <= 1.0
    # And it is no wider than it has to be: values spread as the intervals say.
    spread = np.std([frechet(*pair(seed)) for seed in range(1000, 1150)])
    assert np.mean([high - low for low, high in intervals]) == pytest.approx(2 * 1.96 * spread, rel=0.3)


def test_interval_is_the_same_for_the_same_seed_and_shrinks_with_more_clips() -> None:
    few = bootstrap_interval(sample(60, 3), sample(60, 3, seed=1, shift=0.5), replicates=40, seed=3)
    assert few == bootstrap_interval(sample(60, 3), sample(60, 3, seed=1, shift=0.5), replicates=40, seed=3)
    many = bootstrap_interval(sample(2000, 3), sample(2000, 3, seed=1, shift=0.5), replicates=40, seed=3)
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), [(400, 400), (400, 1200)])
def test_extrapolation_takes_most_of_the_bias_away(ours: int, theirs: int) -> None:
    """Equal distributions are at distance 0, which finite samples never show."""
    plain, unbiased = [], []
    for seed in range(8):
        one, two = sample(ours, 12, seed=seed), sample(theirs, 12, seed=seed + 50)
        plain.append(frechet(one, two))
        unbiased.append(extrapolate(one, two, seed=seed).value)
    assert np.mean(plain) > 0.1
    assert abs(np.mean(unbiased)) < 0.25 * np.mean(plain)


@pytest.mark.slow
def test_extrapolation_says_what_it_stands_on(tmp_path: Path) -> None:
    one, two = sample(200, 5), sample(400, 5, seed=1)
    found = extrapolate(one, two)
    assert len(found.points) == 15
    assert found.points[0][:2] == (25, 50)
    assert found.points[-1][:2] == (200, 400)
    assert found.points[-1][2] == pytest.approx(frechet(one, two))
    assert found.linear
    assert found.value < found.points[-1][2] < found.points[0][2]
    assert not extrapolate(sample(20, 15), sample(20, 15, seed=1)).linear
    plot_bias(found, tmp_path / "bias.png", name="FVD")
    assert [path.name for path in tmp_path.iterdir()] == ["bias.png"]


# Inception Score


def test_score_of_certain_classes_is_their_number_and_of_ignorance_one() -> None:
    certain = np.eye(5).repeat(40, axis=0)
    assert inception_score(certain, splits=1).mean == pytest.approx(5)
    same = np.full((100, 5), 0.2)
    found = inception_score(same, splits=10)
    assert found.mean == pytest.approx(1)
    assert found.std == pytest.approx(0, abs=1e-12)
    assert found.interval_95 == pytest.approx((1, 1))


def test_score_of_uneven_probabilities_by_hand() -> None:
    p = np.array([[0.5, 0.5], [1.0, 0.0]])
    marginal = np.array([0.75, 0.25])
    divergence = (0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25) + np.log(1 / 0.75)) / 2
    assert marginal.sum() == 1
    assert inception_score(p, splits=1).mean == pytest.approx(np.exp(divergence))


def test_clips_in_the_order_of_their_classes_are_shuffled_before_they_are_split() -> None:
    certain = np.eye(10).repeat(100, axis=0)
    found = inception_score(certain, splits=10)
    assert 9 < found.mean <= 10
    assert found.interval_95[0] < found.mean < found.interval_95[1]


# Bad input


def test_bad_input_is_told() -> None:
    good, bad = sample(5, 3), sample(5, 3)
    bad[3, 1] = np.nan
    with pytest.raises(LumiereError, match="clip 3 are not finite"):
        frechet(good, bad)
    with pytest.raises(LumiereError, match="at least 2 clips"):
        frechet(good, good[:1])
    with pytest.raises(LumiereError, match="3 and 4 dimensions"):
        frechet(good, sample(5, 4))
    with pytest.raises(LumiereError, match="too few to extrapolate"):
        extrapolate(good[:3], good[:3])
    with pytest.raises(LumiereError, match="give at least 2 clips a split"):
        inception_score(np.full((10, 2), 0.5), splits=6)
    with pytest.raises(LumiereError, match="no probabilities"):
        inception_score(sample(10, 3), splits=1)
    with pytest.raises(LumiereError, match="not finite"):
        inception_score(np.full((10, 2), np.nan), splits=1)

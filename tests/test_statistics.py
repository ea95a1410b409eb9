"""Intervals cover what they promise on simulated data, and the correction matches a hand calculation."""

import numpy as np
import pytest
from scipy import stats

from dream_jax.evaluation import intervals


def simulate(rng, shape, *, seed_std, sample_std, noise_std):
  """Paired differences [seeds, n] with mean 0: a seed effect, a sample effect and noise."""
  seeds, n = shape
  effects = seed_std * rng.normal(size=(seeds, 1)) + sample_std * rng.normal(size=(1, n))
  return effects + noise_std * rng.normal(size=shape)


def test_summary_is_the_student_interval():
  values = [0.81, 0.84, 0.80, 0.86, 0.83]
  found = intervals.summarise(values)
  low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
  assert found['mean'] == pytest.approx(np.mean(values))
  assert found['std'] == pytest.approx(np.std(values, ddof=1))
  assert found['ci95'] == pytest.approx([low, high])


def test_summary_without_spread_or_with_divergence_claims_nothing():
  assert intervals.summarise([0.5]) == {'mean': 0.5, 'std': None, 'ci95': None}
  assert intervals.summarise([0.5, np.nan]) == {'mean': None, 'std': None, 'ci95': None}
  assert intervals.summarise([0.5, 0.5]) == {'mean': 0.5, 'std': 0.0, 'ci95': [0.5, 0.5]}
  with pytest.raises(ValueError, match=r'\(0,\)'):
    intervals.summarise([])


@pytest.mark.parametrize(
  ('seeds', 'seed_std', 'sample_std', 'noise_std'),
  [(5, 1.0, 0.0, 0.1), (5, 0.3, 2.0, 0.5), (3, 0.5, 1.0, 1.0), (10, 0.0, 1.0, 0.1)],
)
def test_two_way_bootstrap_covers_seeds_and_samples(seeds, seed_std, sample_std, noise_std):
  rng = np.random.default_rng(seeds)
  trials, covered, rejected = 400, 0, 0
  for trial in range(trials):
    gap = simulate(rng, (seeds, 80), seed_std=seed_std, sample_std=sample_std, noise_std=noise_std)
    found = intervals.paired_comparison(gap, np.zeros((1, 80)), num_resamples=400, seed=trial)
    covered += found.ci95[0] <= 0 <= found.ci95[1]
    rejected += found.p < 0.05
  # The standard error of a coverage of 95 % over 400 trials is 1.1 points; the method leans to the safe side.
  assert 0.92 <= covered / trials <= 0.995
  assert rejected / trials <= 0.08


def test_two_way_bootstrap_is_as_narrow_as_the_data_allow():
  rng = np.random.default_rng(1)
  gap = 0.2 + simulate(rng, (5, 2000), seed_std=0.0, sample_std=1.0, noise_std=0.0)
  found = intervals.paired_comparison(gap, np.zeros_like(gap), seed=0)
  expected = 2 * 1.96 * gap[0].std() / np.sqrt(2000)
  assert found.ci95[1] - found.ci95[0] == pytest.approx(expected, rel=0.08)
  assert found.p < 0.001
  assert found.ci95[0] > 0


def test_comparison_is_paired_antisymmetric_and_repeatable():
  rng = np.random.default_rng(2)
  common = rng.normal(0, 5, size=(1, 300))
  a, b = common + rng.normal(0.3, 0.5, (4, 300)), common + rng.normal(0, 0.5, (4, 300))
  one, again = intervals.paired_comparison(a, b, seed=3), intervals.paired_comparison(a, b, seed=3)
  mirrored = intervals.paired_comparison(b, a, seed=3)
  assert one == again
  assert mirrored.difference == -one.difference
  assert one.p < 0.05
  assert mirrored.p < 0.05
  # Unpaired, the common part alone would give a half width of .8.
  assert one.ci95[1] - one.ci95[0] < 0.4


def test_equal_methods_are_not_told_apart():
  scores = np.random.default_rng(4).random((5, 50))
  assert intervals.paired_comparison(scores, scores) == (0.0, (0.0, 0.0), 1.0)


def test_zero_at_an_end_of_the_interval_has_a_p_value_of_a_twentieth():
  a, b = np.random.default_rng(7).normal(size=(2, 5, 60))
  found = intervals.paired_comparison(a, b)
  assert found.ci95[0] < found.difference < found.ci95[1]
  for end in found.ci95:
    assert intervals.paired_comparison(a - end, b).p == pytest.approx(0.05, abs=0.003)


def test_one_seed_still_covers_the_samples():
  rng = np.random.default_rng(5)
  a = rng.random((1, 400))
  found = intervals.paired_comparison(a, np.zeros((1, 400)), seed=0)
  assert found.ci95[1] - found.ci95[0] == pytest.approx(2 * 1.96 * a.std() / 20, rel=0.1)


def test_the_interval_of_a_mean_covers_seeds_and_samples():
  rng = np.random.default_rng(6)
  alike = np.repeat(rng.random((1, 400)), 5, axis=0)  # Seeds that agree: the samples alone are uncertain.
  low, high = intervals.two_way_interval(alike)
  assert low < alike.mean() < high
  assert high - low == pytest.approx(2 * 1.96 * alike[0].std() / 20, rel=0.1)
  apart = alike + np.array([-0.2, -0.1, 0.0, 0.1, 0.2])[:, None]
  wide = intervals.two_way_interval(apart)
  assert wide[1] - wide[0] > 2 * (high - low)


def test_divergence_and_wrong_shapes():
  bad = np.array([[0.1, np.nan]])
  assert np.isnan(intervals.paired_comparison(bad, np.zeros((1, 2))).p)
  with pytest.raises(ValueError, match='do not pair'):
    intervals.paired_comparison(np.zeros((3, 5)), np.zeros((2, 5)))
  with pytest.raises(ValueError, match='same n'):
    intervals.paired_comparison(np.zeros((3, 5)), np.zeros((3, 4)))


def test_holm_by_hand():
  # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, then never falling: .02 .03 .06 .06.
  assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
  assert intervals.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
  assert intervals.holm([]) == []
  with pytest.raises(ValueError, match=r'\[0, 1\]'):
    intervals.holm([0.1, float('nan')])

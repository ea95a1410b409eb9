"""Statistics over data sets against scipy, against known answers, and against their definitions."""

import numpy as np
import pytest
from scipy import stats

from dream_jax.evaluation import across

_RNG = np.random.default_rng(0)
# Of five data sets: `good` is ahead by far, `same` and `twin` are one method.
_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
_NOISE = [_RNG.normal(0, 0.01, 8) for _ in _LEVELS]
_SCORES = {
  'same': [level + noise for level, noise in zip(_LEVELS, _NOISE, strict=True)],
  'good': [level + 0.1 + noise[::-1] for level, noise in zip(_LEVELS, _NOISE, strict=True)],
  'twin': [level + noise for level, noise in zip(_LEVELS, _NOISE, strict=True)],
}


@pytest.mark.parametrize(
  ('difference', 'ci95', 'p', 'expected'),
  [
    (0.02, (0.01, 0.03), 0.001, 'better'),
    (-0.02, (-0.03, -0.01), 0.001, 'worse'),
    (0.002, (-0.001, 0.004), 0.3, 'equivalent'),
    (0.002, (0.001, 0.003), 0.001, 'equivalent'),  # Told apart, and too little to matter.
    (0.002, (-0.01, 0.02), 0.3, 'undecided'),
    (0.02, (0.001, 0.04), 0.08, 'undecided'),  # Not after correction.
    (0.02, None, None, 'undecided'),
    (0.02, (0.01, 0.03), float('nan'), 'undecided'),
  ],
)
def test_a_difference_is_better_equivalent_worse_or_undecided(difference, ci95, p, expected):
  assert across.verdict(difference, ci95, p, 0.005) == expected


def test_the_test_over_divisions_is_the_paired_t_test_where_they_share_nothing():
  values = np.array([0.01, 0.03, -0.01, 0.02, 0.04])
  alone, shared = across.over_divisions(values, 0.0), across.over_divisions(values, 1 / 3)
  expected = stats.ttest_1samp(values, 0)
  assert alone.p == pytest.approx(expected.pvalue)
  assert alone.ci95 == pytest.approx(tuple(expected.confidence_interval(0.95)))
  # What divisions share makes them say less: (1 / 5 + 1 / 3) / (1 / 5).
  assert shared.ci95 is not None
  assert alone.ci95 is not None
  assert np.ptp(shared.ci95) / np.ptp(alone.ci95) == pytest.approx(np.sqrt(8 / 3))
  assert shared.p > alone.p
  assert across.over_divisions([0.1], 0.3) == (0.1, None, None)
  assert across.over_divisions([0.0, 0.0], 0.3) == (0.0, (0.0, 0.0), 1.0)
  with pytest.raises(ValueError, match=r'\(2, 1\)'):
    across.over_divisions([[1.0], [2.0]], 0.3)


def test_the_corrected_test_is_rarely_wrong_where_nothing_differs():
  """Divisions of one pool: the plain test would find something in far more than five of a hundred."""
  rng, found = np.random.default_rng(1), []
  for _ in range(400):
    pool = rng.normal(size=100)  # The difference on every sample.
    means = [pool[rng.permutation(100)[:25]].mean() for _ in range(5)]
    found.append((across.over_divisions(means, 1 / 3).p, across.over_divisions(means, 0.0).p))
  corrected, plain = (np.mean(np.array(found) < 0.05, axis=0)).tolist()
  assert corrected < 0.1
  assert plain > 2 * corrected


def test_ranks():
  found = across.mean_ranks(_SCORES)
  assert next(iter(found)) == 'good'
  assert found['good'] == (1.0, (1.0, 1.0))
  assert found['same'].value == found['twin'].value == 2.5
  one = across.mean_ranks({name: runs[:1] for name, runs in _SCORES.items()})
  assert one['good'] == (1.0, None)


def test_improvement():
  found = across.improvement(_SCORES, 'same')
  assert found['good'].value == 0.0
  assert found['twin'].value == pytest.approx(0.5)
  a, b = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 9.0])
  expected = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
  assert across.improvement({'a': [a], 'b': [b]}, 'a')['b'].value == pytest.approx(expected)
  low, high = across.improvement({'a': [a], 'b': [b]}, 'a')['b'].ci95 or (1.0, 0.0)
  assert low <= expected <= high


def test_the_middle_half():
  runs = [np.array([0.0, 1.0, 2.0, 100.0])]
  assert across.interquartile_mean({'a': runs})['a'].value == pytest.approx(1.5)
  low, high = across.interquartile_mean(_SCORES)['good'].ci95 or (1.0, 0.0)
  assert low < across.interquartile_mean(_SCORES)['good'].value < high


def test_profiles_fall_from_one_to_nothing():
  found = across.profiles(_SCORES, np.array([0.0, 0.65, 2.0]))
  assert found['same'].tolist() == [1.0, pytest.approx(0.6), 0.0]


def test_the_matrix_has_a_mirror():
  found = across.matrix(_SCORES)
  ahead, behind = found['good', 'same'], found['same', 'good']
  assert (ahead['wins'], ahead['ties'], ahead['losses']) == (5, 0, 0)
  assert ahead['difference'] == pytest.approx(0.1)
  assert behind['difference'] == pytest.approx(-0.1)
  gap = [np.mean(a) - np.mean(b) for a, b in zip(_SCORES['good'], _SCORES['same'], strict=True)]
  assert ahead['p'] == pytest.approx(stats.wilcoxon(gap).pvalue)
  assert found['same', 'twin']['p'] is None
  assert found['same', 'twin']['ties'] == 5


def test_scores_between_guessing_and_the_best():
  found = across.normalised(_SCORES, [0.4] * 5)
  assert np.mean(found['good'][0]) == pytest.approx(1.0)
  assert np.mean(found['same'][0]) == pytest.approx(0.5, abs=0.05)

"""Statistics over data sets: what a method is worth on data that nobody has seen yet.

Every data set counts once. A run is one seed on one division of a data set; runs of all methods are paired.

Where intervals come from:
  `mean_ranks`, `matrix`       data sets are resampled: another collection of data sets of this kind.
  `interquartile_mean`,        runs are resampled within data sets (stratified): other runs on these data sets
  `improvement`, `profiles`    (Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical
                               precipice", whose measures these are).
  `over_divisions`             one data set: divisions share training samples, so the variance of their mean is
                               corrected (Nadeau and Bengio, 2003, "Inference for the generalization error").

Dimension letters: N data sets, R runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from dream_jax.evaluation.intervals import Comparison

# Method -> one array [R] a data set, higher is better; R may differ between data sets and not between methods.
Scores = Mapping[str, Sequence[np.ndarray]]

_RESAMPLES = 2000
VERDICTS = ('better', 'equivalent', 'undecided', 'worse')


class Estimate(NamedTuple):
  """A value and its 95 % interval; None where there is too little to tell."""

  value: float
  ci95: tuple[float, float] | None


def verdict(difference: float, ci95: Sequence[float] | None, p: float | None, margin: float) -> str:
  """What a paired difference says, one of `VERDICTS`.

  'equivalent': the whole interval lies within the margin, whether or not it holds 0 (Kruschke, 2018: a region of
  practical equivalence). Else 'better' or 'worse' where the corrected p value is below 5 %. Else 'undecided': the data
  do not tell.

  Args:
    difference: of a metric of which more is better.
    ci95: its interval; None where there is none.
    p: its p value, corrected for the number of comparisons; None where there is none.
    margin: differences as small as this do not matter.
  """
  if ci95 is not None and -margin <= ci95[0] and ci95[1] <= margin:
    return 'equivalent'
  if p is None or not p < 0.05:
    return 'undecided'
  return 'better' if difference > 0 else 'worse'


def over_divisions(differences: Any, test_share: float) -> Comparison:
  """The mean difference over divisions of one data set, with the corrected resampled t-test.

  Args:
    differences: [K], of each division, its seeds averaged.
    test_share: samples for testing over samples for training.

  Raises:
    ValueError: not one number a division.
  """
  values = np.asarray(differences, np.float64)
  if values.ndim != 1 or not len(values):
    raise ValueError(f'expected one difference a division, [K]; got shape {values.shape}')
  mean = float(values.mean())
  if len(values) == 1:
    return Comparison(mean, None, None)
  error = np.sqrt((1 / len(values) + test_share) * values.var(ddof=1))
  if error == 0:
    return Comparison(mean, (mean, mean), 1.0 if mean == 0 else 0.0)
  half = special.stdtrit(len(values) - 1, 0.975) * error
  p = 2 * special.stdtr(len(values) - 1, -abs(mean) / error)
  return Comparison(mean, (mean - half, mean + half), float(p))


def mean_ranks(*scores: Scores) -> dict[str, Estimate]:
  """Mean rank of every method over data sets, 1 is best, equals share; best first.

  Args:
    *scores: of one protocol, or of several, over which the ranks of a data set are averaged first.
  """
  names = list(scores[0])
  ranks = np.mean([stats.rankdata(-_means(one), axis=0) for one in scores], axis=0)  # [methods, N]
  draws = ranks[:, _resampled(ranks.shape[1])].mean(-1)  # [methods, resamples]
  found = {
    name: Estimate(float(ranks[i].mean()), _interval(draws[i]) if ranks.shape[1] > 1 else None)
    for i, name in enumerate(names)
  }
  return dict(sorted(found.items(), key=lambda item: item[1].value))


def improvement(scores: Scores, reference: str) -> dict[str, Estimate]:
  """Probability that a run of the reference is better than a run of another, mean over data sets; equals count half."""
  return {name: _stratified(scores[reference], scores[name], _probability) for name in scores if name != reference}


def interquartile_mean(scores: Scores) -> dict[str, Estimate]:
  """Mean of the middle half of all runs of all data sets; the scores of data sets have to be comparable."""
  found = {}
  for name, runs in scores.items():
    rng = np.random.default_rng(0)
    draws = np.array(
      [
        stats.trim_mean(np.concatenate([x[rng.integers(len(x), size=len(x))] for x in runs]), 0.25)
        for _ in range(_RESAMPLES)
      ]
    )
    found[name] = Estimate(float(stats.trim_mean(np.concatenate(list(runs)), 0.25)), _interval(draws))
  return found


def profiles(scores: Scores, thresholds: np.ndarray) -> dict[str, np.ndarray]:
  """Share of runs that reach each threshold, mean over data sets, name -> [thresholds]."""
  return {
    name: np.mean([(np.asarray(x)[:, None] >= thresholds).mean(0) for x in runs], axis=0)
    for name, runs in scores.items()
  }


def matrix(scores: Scores) -> dict[tuple[str, str], dict[str, Any]]:
  """Every method against every other: (a, b) -> mean difference, its interval, data sets won, tied, lost, and p.

  The p value is of Wilcoxon's signed-rank test over data sets, not corrected; None where fewer than two differ. A data
  set is won by the better mean, and tied where means are equal.
  """
  names, means = list(scores), _means(scores)
  where = _resampled(means.shape[1])
  found = {}
  for i, a in enumerate(names):
    for j, b in enumerate(names):
      if i != j:
        gap = means[i] - means[j]
        testable = np.count_nonzero(gap) > 1
        found[a, b] = {
          'difference': float(gap.mean()),
          'ci95': _interval(gap[where].mean(-1)) if len(gap) > 1 else None,
          'wins': int((gap > 0).sum()),
          'ties': int((gap == 0).sum()),
          'losses': int((gap < 0).sum()),
          'p': float(np.asarray(stats.wilcoxon(gap)[1])) if testable else None,
        }
  return found


def normalised(scores: Scores, lowest: Sequence[float]) -> dict[str, list[np.ndarray]]:
  """Scores between 0, what guessing gives (`lowest`, one a data set), and 1, the best mean of any method."""
  highest = _means(scores).max(0)
  return {
    name: [(np.asarray(x) - low) / max(high - low, 1e-12) for x, low, high in zip(runs, lowest, highest, strict=True)]
    for name, runs in scores.items()
  }


def _means(scores: Scores) -> np.ndarray:
  """Mean over runs, [methods, N]."""
  return np.array([[np.mean(x) for x in runs] for runs in scores.values()])


def _resampled(size: int) -> np.ndarray:
  return np.random.default_rng(0).integers(size, size=(_RESAMPLES, size))


def _interval(draws: np.ndarray) -> tuple[float, float]:
  low, high = np.quantile(draws, (0.025, 0.975))
  return float(low), float(high)


def _probability(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """[...] of runs [..., R]."""
  gap = np.sign(a[..., :, None] - b[..., None, :])
  return 0.5 + 0.5 * gap.mean((-1, -2))


def _stratified(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray], measure: Any) -> Estimate:
  rng, draws, values = np.random.default_rng(0), np.zeros(_RESAMPLES), []
  for a, b in zip(mine, theirs, strict=True):
    a, b = np.asarray(a), np.asarray(b)
    # Runs are paired: seed and division are resampled together.
    rows = rng.integers(len(a), size=(_RESAMPLES, len(a)))
    draws += measure(a[rows], b[rows]) / len(mine)
    values.append(measure(a, b))
  return Estimate(float(np.mean(values)), _interval(draws))

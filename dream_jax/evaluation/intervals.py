"""How sure we are: intervals over seeds and over test samples, paired comparisons, and the correction for many of them.

Three intervals, and what each covers:
  `summarise`          a method's mean over seeds: another training run on the same data. The test set is fixed.
  `paired_comparison`  a difference of two methods over seeds and test samples: another training run judged on another
                       test set of the same size and kind.
  `two_way_interval`   a method's mean over seeds and test samples: likewise.
The training set is fixed in all three.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

_CHUNK_VALUES = 2_000_000  # resampled values held at once: about 32 MB with their indices


class Comparison(NamedTuple):
  """A minus B: the difference of means, its 95 % interval and two-sided p value (None where one seed gives none)."""

  difference: float
  ci95: tuple[float, float] | None
  p: float | None


def summarise(values) -> dict:
  """{'mean', 'std', 'ci95': [lo, hi]} over seeds, ready for JSON.

  `std` is the sample standard deviation (ddof 1); the interval is Student's t. One seed has neither: both are None. A
  value that is not finite makes all three None, because dropping a diverged seed would flatter the method.

  Args:
    values: [seeds].

  Raises:
    ValueError: empty, or more than one axis.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values):
    raise ValueError(f'expected one value per seed, [seeds]; got shape {values.shape}')
  if not np.isfinite(values).all():
    return {'mean': None, 'std': None, 'ci95': None}
  mean = float(values.mean())
  if len(values) == 1:
    return {'mean': mean, 'std': None, 'ci95': None}
  std = float(values.std(ddof=1))
  half = _t_quantile(len(values)) * std / np.sqrt(len(values))
  return {'mean': mean, 'std': std, 'ci95': [float(mean - half), float(mean + half)]}


def paired_comparison(scores_a, scores_b, *, num_resamples: int = 4000, seed: int = 0) -> Comparison:
  """A minus B with a two-way bootstrap over seeds and test samples, both paired.

  With d = A - B, every resample draws seeds and samples with replacement and moves the mean by the mean of the drawn
  row means plus the mean of the drawn column means of d, both centred: the crossed bootstrap of Owen (2007) without the
  product term, which only adds noise that the row and column means already hold. The seeds' part is stretched by
  t / z * sqrt(S / (S - 1)) (Hesterberg 2015, expanded percentiles): plain percentiles of a handful of seeds make
  intervals far too short. Noise of single (seed, sample) pairs is in both parts, so the interval errs on the wide side.
  With one seed it covers the test samples only.

  Args:
    scores_a: [seeds, n], per-sample scores of method A (averaged over conditions first, if there are several).
    scores_b: [seeds, n], the same seeds and samples of method B. A method without randomness may give [1, n].
    num_resamples: number of bootstrap draws; p can't fall below 2 / (num_resamples + 1).
    seed: seed of the draws.

  Returns:
    the difference of means, its percentile interval and the two-sided p value; NaN scores make all of them NaN.

  Raises:
    ValueError: shapes do not pair, or nothing is given.
  """
  a, b = np.asarray(scores_a, np.float64), np.asarray(scores_b, np.float64)
  if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.size or not b.size:
    raise ValueError(f'expected scores [seeds, n] of the same n; got {a.shape} and {b.shape}')
  if a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0]):
    raise ValueError(f'seeds do not pair: {a.shape[0]} and {b.shape[0]}')
  gap = a - b
  difference = float(gap.mean())
  if not np.isfinite(difference):
    return Comparison(float('nan'), (float('nan'), float('nan')), float('nan'))
  seeds, samples = _resamples(gap.shape[0], gap.shape[1], num_resamples, seed)
  draws = np.full(num_resamples, difference)
  num_seeds = gap.shape[0]
  if num_seeds > 1:
    stretch = _t_quantile(num_seeds) / special.ndtri(0.975) * np.sqrt(num_seeds / (num_seeds - 1))
    draws += stretch * (seeds @ (gap.mean(axis=1) - difference))
  draws += samples @ (gap.mean(axis=0) - difference)
  low, high = np.quantile(draws, (0.025, 0.975))
  tail = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
  return Comparison(difference, (float(low), float(high)), float(min(1.0, 2 * (tail + 1) / (num_resamples + 1))))


def two_way_interval(scores) -> tuple[float, float] | None:
  """95 % interval of the mean of scores [seeds, n] over seeds and test samples, see `paired_comparison`."""
  scores = np.asarray(scores, np.float64)
  return paired_comparison(scores, np.zeros((1, scores.shape[-1]))).ci95


def holm(p_values: Sequence[float]) -> list[float]:
  """P values adjusted for their number (Holm 1979), in the given order.

  Calling all of those below 0.05 real is wrong, anywhere among them, at most 5 times in 100.

  Raises:
    ValueError: a value outside [0, 1], NaN included.
  """
  p = np.asarray(p_values, np.float64)
  if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
    raise ValueError(f'p values lie in [0, 1]; got {p.tolist()}')
  order = np.argsort(p, kind='stable')
  stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
  adjusted = np.empty(len(p))
  adjusted[order] = np.minimum(stepped, 1.0)
  return adjusted.tolist()


def _t_quantile(num_seeds):
  """97.5 % quantile of Student's t with num_seeds - 1 degrees of freedom."""
  return special.stdtrit(num_seeds - 1, 0.975)


@functools.lru_cache(maxsize=1)
def _resamples(num_seeds, num_samples, num_resamples, seed):
  """Weights of resamples with replacement, [num_resamples, num_seeds] and [num_resamples, num_samples].

  A study makes hundreds of comparisons of one shape; each is a product with these matrices then.
  """
  rng = np.random.default_rng(seed)
  return tuple(_weights(rng, size, num_resamples) for size in (num_seeds, num_samples))


def _weights(rng, size, num_resamples):
  counts = np.zeros((num_resamples, size), np.float32)
  rows = max(1, _CHUNK_VALUES // size)
  for start in range(0, num_resamples, rows):
    drawn = rng.integers(size, size=(min(rows, num_resamples - start), size))
    for row, places in enumerate(drawn, start):
      counts[row] = np.bincount(places, minlength=size)
  return counts / np.float32(size)

"""Coalitions of modalities, and the Shapley value over them.

All coalitions of M modalities are one 0/1 matrix [G, M]; whatever is defined on a coalition is computed for all of them
in one batched operation.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

MAX_EXACT = 8


@functools.cache
def coalition_matrix(num_modalities: int) -> np.ndarray:
  """Every non-empty coalition as a row of a bool matrix [2^M - 1, M]; row i is the binary expansion of i + 1.

  Above `MAX_EXACT` modalities only the coalitions that matter most are listed: all with at most two modalities missing
  and all with one or two present.
  """
  m = num_modalities
  if m <= MAX_EXACT:
    return ((np.arange(1, 2**m)[:, None] >> np.arange(m)[None, :]) & 1).astype(bool)
  rows = []
  for size in sorted({1, 2, m - 2, m - 1, m}):
    for members in itertools.combinations(range(m), size):
      rows.append(np.isin(np.arange(m), members))
  return np.stack(rows)


@functools.cache
def shapley_matrix(num_modalities: int) -> np.ndarray:
  """Float64 [M, 2^M] that maps the values of all coalitions, the empty one first, to Shapley values (Shapley, 1953)."""
  m = num_modalities
  if m > MAX_EXACT:
    raise ValueError(f'exact Shapley values need at most {MAX_EXACT} modalities, found {m}')
  members = np.concatenate([np.zeros((1, m), bool), coalition_matrix(m)])
  sizes = members.sum(1)
  weight_in = np.array([math.factorial(s - 1) * math.factorial(m - s) / math.factorial(m) if s else 0.0 for s in sizes])
  weight_out = np.array(
    [math.factorial(s) * math.factorial(m - s - 1) / math.factorial(m) if s < m else 0.0 for s in sizes]
  )
  return np.where(members, weight_in[:, None], -weight_out[:, None]).T


def shapley_values(values: jax.Array, empty: jax.Array, num_modalities: int) -> jax.Array:
  """Shapley value of every modality, [..., M].

  Args:
    values: [..., G] value of each row of `coalition_matrix`.
    empty: [...] value of the empty coalition.
    num_modalities: M. Above `MAX_EXACT` the mean marginal contribution over the listed pairs of coalitions that differ
      in one modality stands in for the Shapley value.
  """
  if num_modalities <= MAX_EXACT:
    every = jnp.concatenate([empty[..., None], values], axis=-1)
    return every @ jnp.asarray(shapley_matrix(num_modalities), every.dtype).T
  return values @ jnp.asarray(_marginal_matrix(num_modalities), values.dtype).T


@functools.cache
def _marginal_matrix(num_modalities: int) -> np.ndarray:
  """[M, G]: averages of v(S) - v(S without m) over the listed S for which both are listed."""
  rows = coalition_matrix(num_modalities)
  index = {row.tobytes(): i for i, row in enumerate(rows)}
  result = np.zeros((num_modalities, len(rows)))
  for m in range(num_modalities):
    pairs = []
    for i, row in enumerate(rows):
      without = row.copy()
      without[m] = False
      if row[m] and without.tobytes() in index:
        pairs.append((i, index[without.tobytes()]))
    for i, j in pairs:
      result[m, i] += 1 / len(pairs)
      result[m, j] -= 1 / len(pairs)
  return result

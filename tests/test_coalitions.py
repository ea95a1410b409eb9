"""Coalitions and Shapley values against the definition: the mean marginal contribution over all orders of arrival."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.models import evidence
from dream_jax.models.coalitions import MAX_EXACT, coalition_matrix, shapley_matrix, shapley_values
from dream_jax.models.dream.contribution import certainty_credit, credit, expected_credit
from dream_jax.spec import DatasetSpec, ModalitySpec


def _game(m, batch=3, seed=0):
  """Random values of every coalition, {frozenset: [batch]}, as a table and as the library wants them."""
  rng = np.random.default_rng(seed)
  table = {frozenset(np.flatnonzero(row)): rng.normal(size=batch) for row in coalition_matrix(m)}
  table[frozenset()] = rng.normal(size=batch)
  values = np.stack([table[frozenset(np.flatnonzero(row))] for row in coalition_matrix(m)], -1)
  return table, jnp.asarray(values, jnp.float32), jnp.asarray(table[frozenset()], jnp.float32)


def _by_permutations(table, m):
  total, orders = np.zeros((len(table[frozenset()]), m)), list(itertools.permutations(range(m)))
  for order in orders:
    for i, player in enumerate(order):
      total[:, player] += table[frozenset(order[: i + 1])] - table[frozenset(order[:i])]
  return total / len(orders)


@pytest.mark.parametrize('m', [2, 3, 5])
def test_every_coalition_is_listed_once_and_the_last_is_all(m):
  rows = coalition_matrix(m)
  assert rows.shape == (2**m - 1, m)
  assert rows.dtype == bool
  assert len({tuple(r) for r in rows}) == len(rows)
  assert rows.any(1).all()
  assert rows[-1].all()  # leave-one-out reads v(all) there
  for i, row in enumerate(rows):
    assert sum(2**j for j in np.flatnonzero(row)) == i + 1


@pytest.mark.parametrize('m', [2, 3, 4, 5])
def test_shapley_values_are_the_mean_over_orders_of_arrival(m):
  table, values, empty = _game(m)
  np.testing.assert_allclose(shapley_values(values, empty, m), _by_permutations(table, m), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('m', [2, 3, 4, 5, MAX_EXACT])
def test_shares_add_up_to_what_all_gain_together(m):
  _, values, empty = _game(m, seed=1)
  phi = shapley_values(values, empty, m)
  np.testing.assert_allclose(phi.sum(-1), values[:, -1] - empty, atol=1e-4)


def test_who_adds_nothing_gets_nothing_and_twins_get_the_same():
  m = 4
  rows = coalition_matrix(m)

  # Slot 3 is a dummy; slots 0 and 1 are interchangeable.
  def v(row):
    return float((row[0] + row[1]) ** 2 + 3 * row[2] * (row[0] + row[1]))

  phi = shapley_values(jnp.asarray([v(r.astype(int)) for r in rows]), jnp.asarray(0.0), m)
  np.testing.assert_allclose(phi[3], 0.0, atol=1e-6)
  np.testing.assert_allclose(phi[0], phi[1], rtol=1e-6)


def test_above_the_exact_limit_few_coalitions_stand_in_for_all():
  m = MAX_EXACT + 1
  rows = coalition_matrix(m)
  sizes = rows.sum(1)
  assert set(sizes) == {1, 2, m - 2, m - 1, m}
  assert len(rows) == 2 * (m + m * (m - 1) // 2) + 1
  assert len({tuple(r) for r in rows}) == len(rows)
  assert rows[-1].all()
  with pytest.raises(ValueError, match='at most'):
    shapley_matrix(m)
  # In a game without interaction every marginal is the slot's own weight, so the stand-in is exact.
  weight = np.arange(m, dtype=np.float32)
  values = jnp.asarray(np.stack([rows @ weight, rows @ -weight]), jnp.float32)
  phi = jax.jit(lambda v: shapley_values(v, jnp.zeros(2), m))(values)
  assert phi.shape == (2, m)
  np.testing.assert_allclose(phi, np.stack([weight, -weight]), atol=1e-4)


def _spec(m, task='multiclass', outputs=3):
  return DatasetSpec('any', tuple(ModalitySpec(f'm{i}', 'vector', (2,)) for i in range(m)), task, outputs, 'synthetic')


@pytest.mark.parametrize('m', [2, 4, MAX_EXACT + 1])
def test_credit_is_as_defined(m):
  rows = coalition_matrix(m)
  values = jnp.asarray(np.random.default_rng(2).uniform(size=(3, len(rows))), jnp.float32)
  empty = jnp.asarray([0.1, 0.2, 0.3])
  index = {tuple(r): i for i, r in enumerate(rows)}
  for kind in ('shapley', 'leave_one_out', 'confidence'):
    found = np.asarray(credit(_spec(m), values, empty, kind=kind))
    assert found.shape == (3, m)
    for j in range(m):
      if kind == 'confidence':
        wanted = values[:, index[tuple(np.arange(m) == j)]] - empty
      elif kind == 'leave_one_out':
        wanted = values[:, index[tuple(np.ones(m, bool))]] - values[:, index[tuple(np.arange(m) != j)]]
      else:
        wanted = shapley_values(values, empty, m)[:, j]
      np.testing.assert_allclose(found[:, j], wanted, atol=1e-6)


@pytest.mark.parametrize('task', ['multiclass', 'multilabel', 'binary', 'regression'])
def test_shares_of_certainty_add_up_to_the_certainty_reached(task):
  spec = _spec(3, task, {'multiclass': 4, 'multilabel': 2}.get(task, 1))
  rng = np.random.default_rng(4)
  k = evidence.num_natural(spec)
  prior = jnp.asarray(rng.normal(size=k), jnp.float32)
  eta = evidence.from_raw(spec, jnp.asarray(rng.normal(size=(5, 3, k)), jnp.float32))
  summed = jnp.einsum('gm,bmk->bgk', jnp.asarray(coalition_matrix(3), jnp.float32), eta)
  predictions = evidence.predict(spec, prior, summed)
  phi = certainty_credit(spec, prior, eta, predictions)
  assert phi.shape == (5, 3)
  nothing = jnp.zeros((5, k))
  before = evidence.certainty(spec, evidence.predict(spec, prior, nothing), nothing)
  reached = evidence.certainty(spec, predictions[:, -1], summed[:, -1])
  np.testing.assert_allclose(phi.sum(-1), reached - before, atol=1e-5)


def _game_of(spec, prior, predictions, label):
  """Values [B, G] of the game whose target is known, and of its empty coalition [B]."""
  nothing = evidence.predict(spec, prior, jnp.zeros((len(label), evidence.num_natural(spec))))
  every = jnp.concatenate([predictions, nothing[:, None]], 1)
  values = jnp.exp(evidence.score(spec, every, jnp.repeat(label[:, None], every.shape[1], 1)))
  return values[:, :-1], values[:, -1]


@pytest.mark.parametrize('task', ['multiclass', 'multilabel', 'binary'])
def test_expected_credit_is_that_of_every_label_by_its_probability(task):
  c = {'multiclass': 4, 'multilabel': 2, 'binary': 1}[task]
  spec, rng = _spec(3, task, c), np.random.default_rng(6)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  prior, eta, predictions, log_weight = draw(c), draw(5, 3, c), draw(5, 7, c), jax.nn.log_softmax(draw(5, 7), -1)
  belief = evidence.mixture(spec, log_weight, predictions)
  if task == 'multiclass':
    labels, weights = [np.full(5, y) for y in range(c)], np.asarray(jax.nn.softmax(belief, -1)).T
  else:
    labels = [np.tile(y, (5, 1)) for y in itertools.product((0, 1), repeat=c)]
    p = np.asarray(jax.nn.sigmoid(belief))
    weights = [np.where(y == 1, p, 1 - p).prod(-1) for y in labels]
    labels = labels if task == 'multilabel' else [y[:, 0] for y in labels]
  for kind in ('shapley', 'leave_one_out', 'confidence'):
    wanted = 0
    for label, weight in zip(labels, weights, strict=True):
      game = _game_of(spec, prior, predictions, jnp.asarray(label))
      wanted += weight[:, None] * credit(spec, *game, kind=kind)
    found = expected_credit(spec, prior, eta, predictions, log_weight, kind=kind)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_expected_credit_of_a_sure_regression_is_that_of_its_value():
  spec, rng = _spec(3, 'regression', 1), np.random.default_rng(7)
  predictions = jnp.asarray(rng.normal(size=(5, 7, 1)), jnp.float32)
  weight = jnp.log(jnp.tile(jnp.asarray([1e-30] * 6 + [1.0], jnp.float32), (5, 1)))
  eta = jnp.full((5, 3, 2), 1e8)
  found = expected_credit(spec, jnp.zeros(2), eta, predictions, weight)
  wanted = credit(spec, *_game_of(spec, jnp.zeros(2), predictions, predictions[:, -1, 0]))
  np.testing.assert_allclose(found, wanted, atol=1e-3)
  assert np.abs(found - expected_credit(spec, jnp.zeros(2), 0 * eta, predictions, weight)).max() > 0.01


def test_variance_of_a_mixture_is_that_of_its_samples():
  rng = np.random.default_rng(8)
  weight, mean, precision = np.array([0.2, 0.5, 0.3]), np.array([-1.0, 0.5, 2.0]), np.array([0.0, 3.0, 8.0])
  which = rng.choice(3, 400_000, p=weight)
  drawn = rng.normal(mean[which], 1 / np.sqrt(1 + precision[which]))
  eta = jnp.asarray(np.stack([0 * precision, precision], -1))
  found = evidence.mixture_variance(jnp.log(jnp.asarray(weight)), jnp.asarray(mean)[:, None], eta)
  np.testing.assert_allclose(found, [drawn.var()], rtol=0.02)


@pytest.mark.parametrize('task', ['multiclass', 'multilabel', 'binary', 'regression'])
def test_a_modality_without_evidence_earns_no_share_of_certainty(task):
  spec = _spec(3, task, {'multiclass': 4, 'multilabel': 2}.get(task, 1))
  rng = np.random.default_rng(5)
  k = evidence.num_natural(spec)
  prior = jnp.asarray(rng.normal(size=k), jnp.float32)
  eta = evidence.from_raw(spec, jnp.asarray(rng.normal(size=(5, 3, k)), jnp.float32)).at[:, 1].set(0.0)
  summed = jnp.einsum('gm,bmk->bgk', jnp.asarray(coalition_matrix(3), jnp.float32), eta)
  phi = np.asarray(certainty_credit(spec, prior, eta, evidence.predict(spec, prior, summed)))
  np.testing.assert_allclose(phi[:, 1], 0.0, atol=1e-6)
  assert (np.abs(phi[:, [0, 2]]) > 1e-3).any()

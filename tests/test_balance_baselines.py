"""OGM-GE, MMPareto and valuation compute what their papers say, and change no other gradient than they mean to."""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from baseline_cases import (
  CLOSE,
  EVERY_TASK,
  NAMES,
  SEED,
  STILL,
  B,
  Case,
  cross_entropy,
  dense,
  draw_key,
  finite,
  gelu,
  inputs_of,
  label_of,
  reaches,
  sigmoid,
  softmax,
  steps,
  vectors,
  with_and_without,
)
from small_runs import jit, small_spec

from dream_jax.models.baselines.mmpareto import MmPareto, combine
from dream_jax.models.baselines.modality_valuation import ValuationResampling, right
from dream_jax.models.baselines.ogm_ge import OgmGe
from dream_jax.models.outputs import Outputs

_OPTIONS = {OgmGe: {'alpha': 0.7}, MmPareto: {}, ValuationResampling: {}}
_DRAWS = 256


class _Results(NamedTuple):
  """What one call of a method without dropout gives on a batch.

  Attributes:
    outputs: of the batch's inputs, of prediction.
    terms: of the loss.
    jacobian: {term: its gradient by the parameters}.
    step: what `gradient` says.
    more: of OGM-GE many noisy gradients, of MMPareto each modality's own gradient, of valuation the values of the
      batch and the terms of many draws.
  """

  outputs: Outputs
  terms: dict
  jacobian: dict
  step: tuple
  more: object


class _Case(Case):
  """OGM-GE, MMPareto or valuation; OGM-GE's step is without noise."""

  def everything(self, params, batch):
    outputs = self.model.apply({'params': params}, batch['inputs'])
    terms, jacobian, _ = self.taught(params, batch)
    model, key = self.model, jax.random.key(SEED)
    if isinstance(model, OgmGe):
      more = jax.vmap(lambda key: model.gradient(params, batch, key)[1])(_keys())
      model = OgmGe(self.spec, STILL, alpha=model.alpha, enhance=False)
    elif isinstance(model, MmPareto):
      more = jax.jacrev(self._alone)(params, batch)
    else:
      values = model.apply({'params': params}, outputs.latents, batch['label'], method='values')
      more = values, jax.vmap(lambda key: model.loss(params, batch, key)[1])(_keys())
    return _Results(outputs, terms, jacobian, model.gradient(params, batch, key), more)

  def _alone(self, params, batch):
    """The loss of each modality alone, [M]."""
    logits = self.model.apply({'params': params}, batch['inputs']).unimodal_predictions
    at_label = jax.nn.one_hot(batch['label'], logits.shape[-1])[:, None]
    return -(jax.nn.log_softmax(logits) * at_label).sum(-1).mean(0)


@functools.cache
def _case(module):
  return _Case(module, _OPTIONS[module], vectors())


def _keys():
  return jax.random.split(jax.random.key(7), _DRAWS)


# What the three share.


@pytest.mark.parametrize('module', [OgmGe, MmPareto, ValuationResampling])
def test_everything_is_finite_with_nothing_there(module):
  c = _case(module)
  for inputs, clean in with_and_without(c.spec):
    r = c.run(inputs=inputs, clean=clean)
    assert finite(r)
    assert reaches(r.step[1]['encoders'])


@EVERY_TASK
@pytest.mark.parametrize('module', [OgmGe, MmPareto, ValuationResampling])
def test_every_task_trains(module, task):
  for result in steps(module, task, _OPTIONS[module]):
    assert finite(result)
    assert reaches(result[1])


@pytest.mark.parametrize('module', [OgmGe, MmPareto])
def test_the_total_is_what_the_gradient_of_the_heads_is_of(module):
  r = _case(module).run()
  (total, terms), gradient = r.step
  minimised = {name for name in terms if not name.startswith('factor/')}
  assert minimised == ({'task'} if module is OgmGe else {'task', 'unimodal'})
  np.testing.assert_allclose(total, sum(terms[name] for name in minimised), rtol=1e-6)
  for part in set(gradient) - {'encoders'}:
    plain = jax.tree.map(lambda *g: sum(g), *(r.jacobian[name][part] for name in minimised))
    jax.tree.map(lambda g, h: np.testing.assert_allclose(g, h, **CLOSE), gradient[part], plain)


# OGM-GE.


def _likelihoods(task, logits, label):
  """[B, M] of each modality's part of the logits, one sample and modality at a time."""
  result = np.zeros(logits.shape[:2])
  for i, m in itertools.product(*map(range, logits.shape[:2])):
    x, y = logits[i, m], label[i]
    if task == 'regression':
      error = abs(x[0] - y)
      result[i, m] = math.exp(-(error**2 if error < 0.5 else error - 0.25))
    elif task == 'multiclass':
      result[i, m] = softmax(x)[y]
    else:
      p = sigmoid(x)
      result[i, m] = np.where(np.atleast_1d(y) == 1, p, 1 - p).prod()
  return result


def _factors(likelihoods, alpha):
  s = likelihoods.sum(0)
  rho = [s[m] / np.delete(s, m).mean() for m in range(len(s))]
  return np.array([1 - math.tanh(alpha * r) if r > 1 else 1.0 for r in rho])


@pytest.mark.parametrize('task', ['regression', 'binary', 'multiclass', 'multilabel'])
def test_a_modality_is_slowed_by_how_far_it_is_ahead_of_the_others(task):
  spec = vectors(task)
  for seed in range(3):
    parts = np.random.default_rng(seed).normal(size=(B, 3, spec.num_outputs)).astype(np.float32)
    label = label_of(spec)
    expected = _factors(_likelihoods(task, parts, label), 0.7)
    assert 0 < (expected < 1).sum() < 3
    found = OgmGe(spec, STILL, alpha=0.7).factors(jnp.asarray(parts), jnp.asarray(label))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_ogm_predicts_with_a_linear_head_whose_parts_are_the_modalities():
  c = _case(OgmGe)
  r = c.run()
  z = np.asarray(r.outputs.latents)
  parts = np.stack([dense(c.params['parts'], z[:, m], m) for m in range(3)], 1)
  np.testing.assert_allclose(r.outputs.unimodal_predictions, parts, **CLOSE)
  np.testing.assert_allclose(r.outputs.prediction, parts.sum(1), **CLOSE)
  label = label_of(c.spec)
  np.testing.assert_allclose(r.terms['task'], cross_entropy(parts.sum(1), label).mean(), rtol=1e-5)
  factors = [r.terms[f'factor/{name}'] for name in NAMES]
  np.testing.assert_allclose(factors, _factors(_likelihoods('multiclass', parts, label), 0.7), rtol=1e-5)
  # One bias, a third of it in each part: those that start equal stay so.
  bias = np.asarray(r.jacobian['task']['parts']['bias'])
  np.testing.assert_allclose(bias, np.broadcast_to(bias[0], bias.shape), rtol=1e-6)
  assert reaches(bias)


def test_ogm_scales_the_gradient_of_each_encoder_by_its_factor():
  c = _case(OgmGe)
  r = c.run()
  plain, (_, gradient) = r.jacobian['task'], r.step
  for name in NAMES:
    scaled = jax.tree.map(lambda g, n=name: r.terms[f'factor/{n}'] * g, plain['encoders'][name])
    jax.tree.map(lambda g, s: np.testing.assert_allclose(g, s, **CLOSE), gradient['encoders'][name], scaled)
  assert not any(reaches(r.jacobian[f'factor/{name}']) for name in NAMES)


def _noise(r, name):
  """[(gradient of a tensor, what was added to it in each draw [draws, ...])] of one encoder that learns."""
  plain, still = r.jacobian['task']['encoders'][name], r.step[1]['encoders'][name]
  added = jax.tree.map(lambda noisy, g: np.asarray(noisy, np.float64) - np.asarray(g), r.more['encoders'][name], still)
  return [(g, n) for g, n in zip(jax.tree.leaves(plain), jax.tree.leaves(added), strict=True) if reaches(g)]


@pytest.mark.parametrize(
  'slowed',
  [False, True],
)
def test_the_noise_has_the_standard_deviation_of_the_gradient(slowed):
  r = _case(OgmGe).run()
  names = [name for name in NAMES if (r.terms[f'factor/{name}'] < 1) == slowed]
  assert 0 < len(names) < 3
  for name in names:
    for gradient, noise in _noise(r, name):
      assert abs(noise.mean()) < 5 * noise.std() / np.sqrt(noise.size)
      np.testing.assert_allclose(noise.std(), np.std(gradient), rtol=4 / np.sqrt(2 * noise.size))


def test_every_entry_of_every_tensor_of_the_encoders_is_shaken_by_itself_and_none_of_the_head():
  r = _case(OgmGe).run()
  for noisy, plain in zip(*map(jax.tree.leaves, (r.more['parts'], r.jacobian['task']['parts'])), strict=True):
    np.testing.assert_allclose(noisy, np.broadcast_to(plain, noisy.shape), **CLOSE)
  entries = [n.reshape(_DRAWS, -1) for name in NAMES for _, n in _noise(r, name)]
  correlation = np.corrcoef(np.concatenate(entries, 1), rowvar=False)
  np.fill_diagonal(correlation, 0)
  assert np.abs(correlation).max() < 7 / np.sqrt(_DRAWS)


# MMPareto.


def _pair(seed, agree, size=12):
  """Two random vectors of unequal lengths, at an acute or an obtuse angle that is nowhere near a straight one."""
  rng = np.random.default_rng(seed)
  g, u = rng.normal(size=size), rng.normal(size=size) * rng.uniform(0.2, 3)
  if (g @ u > 0) != agree:
    u = -u
  assert abs(g @ u) < 0.95 * np.linalg.norm(g) * np.linalg.norm(u)
  return g.astype(np.float32), u.astype(np.float32)


def _tree(x):
  return {'a': x[:6].reshape(2, 3), 'b': {'c': x[6:]}}


def _flat(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(np.float64)


@functools.cache
def _combined():
  return jit(combine)


def _step(g, u):
  return _flat(_combined()(_tree(jnp.asarray(g)), _tree(jnp.asarray(u))))


def _between(g, u):
  """Of all a g + (1 - a) u the shortest, stretched to the length of g + u, by trying."""
  a = np.linspace(0, 1, 20001)[:, None]
  # |a g + (1 - a) u|^2 by products, since vectors are long.
  square = a**2 * (g @ g) + (1 - a) ** 2 * (u @ u) + 2 * a * (1 - a) * (g @ u)
  best = a[square.argmin()]
  shortest = best * g + (1 - best) * u
  return shortest / np.linalg.norm(shortest) * np.linalg.norm(g + u)


def test_gradients_that_agree_are_added():
  for seed in range(20):
    g, u = _pair(seed, agree=True)
    np.testing.assert_allclose(_step(g, u), g + u, rtol=1e-5, atol=1e-6)
  right_angle = np.eye(12, dtype=np.float32)[:2]
  np.testing.assert_array_equal(_step(*right_angle), right_angle.sum(0))


def test_gradients_in_conflict_give_the_shortest_vector_between_them_at_the_length_of_their_sum():
  inside = []
  for seed in range(20):
    g, u = _pair(seed, agree=False)
    step = _step(g, u)
    np.testing.assert_allclose(np.linalg.norm(step), np.linalg.norm(g.astype(np.float64) + u), rtol=1e-5)
    np.testing.assert_allclose(step, _between(g.astype(np.float64), u), atol=1e-3)
    inside.append(np.linalg.norm(step - (g + u)) > 0.1)
  assert sum(inside) > 10  # where the sum would have been another direction


def test_a_step_loses_to_neither_loss():
  for seed in range(20):
    for agree in (False, True):
      g, u = _pair(seed, agree)
      step = _step(g, u)
      assert step @ g > 0
      assert step @ u > 0
  lost = [min((g + u) @ g, (g + u) @ u) < 0 for g, u in (_pair(seed, agree=False) for seed in range(20))]
  assert any(lost)  # the sum does


def test_gradients_that_are_zero_equal_or_opposite_give_a_step():
  g, u = _pair(0, agree=True)
  nothing = np.zeros_like(g)
  np.testing.assert_array_equal(_step(nothing, nothing), nothing)
  np.testing.assert_allclose(_step(g, nothing), g, rtol=1e-6)
  np.testing.assert_allclose(_step(nothing, u), u, rtol=1e-6)
  np.testing.assert_allclose(_step(g, g), 2 * g, rtol=1e-6)
  np.testing.assert_array_equal(_step(g, -g), nothing)
  # Nothing is between these two that gains for both; what rounding leaves of the shortest vector is not blown up.
  assert np.linalg.norm(_step(g, -3 * g)) < 1e-3 * np.linalg.norm(g)
  # The units of a loss are nobody's business.
  conflict = _pair(1, agree=False)
  small = np.float32(1e-4)
  np.testing.assert_allclose(_step(*(small * x for x in conflict)), small * _step(*conflict), rtol=1e-4, atol=1e-9)


def test_mmpareto_predicts_from_all_and_from_each():
  c = _case(MmPareto)
  r, p = c.run(), c.params
  z = np.asarray(r.outputs.latents)
  prediction = dense(p['out'], gelu(dense(p['in'], z.reshape(B, -1))))
  unimodal = np.stack([dense(p['heads'], z[:, m], m) for m in range(3)], 1)
  np.testing.assert_allclose(r.outputs.prediction, prediction, **CLOSE)
  np.testing.assert_allclose(r.outputs.unimodal_predictions, unimodal, **CLOSE)
  label = label_of(c.spec)
  np.testing.assert_allclose(r.terms['task'], cross_entropy(prediction, label).mean(), rtol=1e-5)
  each = [cross_entropy(unimodal[:, m], label).mean() for m in range(3)]
  np.testing.assert_allclose(r.terms['unimodal'], sum(each), rtol=1e-5)
  assert r.step[0][1] == r.terms


def test_an_encoder_learns_from_its_own_unimodal_loss_alone():
  r = _case(MmPareto).run()
  own = [jax.tree.map(lambda g, m=m: g[m], r.more['encoders']) for m in range(3)]
  assert [{name for name, g in each.items() if reaches(g)} for each in own] == [{name} for name in NAMES]
  for name, each in zip(NAMES, own, strict=True):
    found = r.jacobian['unimodal']['encoders'][name]
    np.testing.assert_allclose(_flat(found), _flat(each[name]), **CLOSE)


def test_each_encoder_takes_the_step_between_its_own_two_gradients():
  c, conflicts = _case(MmPareto), []
  for label in ([0, 0, 1, 2], [2, 1, 0, 0], [1, 2, 2, 0]):
    r = c.run(label=np.array(label, np.int32))
    for m, name in enumerate(NAMES):
      g = _flat(r.jacobian['task']['encoders'][name])
      u = _flat(jax.tree.map(lambda x, m=m: x[m], r.more['encoders'][name]))
      conflicts.append(g @ u < 0)
      expected = _between(g, u) if conflicts[-1] else g + u
      difference = np.linalg.norm(_flat(r.step[1]['encoders'][name]) - expected)
      assert difference < 1e-3 * np.linalg.norm(expected)
  assert 2 <= sum(conflicts) <= len(conflicts) - 2


# Valuation.


def _head(p, z):
  """Logits [B, C] of latents [B, M, D]."""
  return dense(p['head_out'], gelu(dense(p['head_in'], z.reshape(len(z), -1))))


def _among(z, members):
  """The latents, zero but for some modalities."""
  return z * np.isin(np.arange(3), members)[:, None].astype(np.float32)


def _shapley(p, z, label):
  """[B, M], the mean over all orders in which modalities may come of what each adds to the value."""

  def value(members):
    return len(members) * (_head(p, _among(z, members)).argmax(1) == label)

  result = np.zeros((B, 3))
  orders = list(itertools.permutations(range(3)))
  for order in orders:
    for i, m in enumerate(order):
      result[:, m] += (value(order[: i + 1]) - value(order[:i])) / len(orders)
  return result


_LOGITS = [[0.1, 0.3, -1.0], [5.0, 4.0, 3.0], [-3.0, -1.0, -2.0]]
_VALUES = [[0.6], [0.6], [-1.0], [-1.0]]
_FOUR = [[1.0, 2.0, -1.0, -2.0], [1.0, -2.0, 3.0, -4.0]]


@pytest.mark.parametrize(
  ('task', 'prediction', 'label', 'expected'),
  [
    ('multiclass', _LOGITS, [1, 1, 2], [1, 0, 0]),
    ('regression', _VALUES, [0.2, 1.2, -0.6, -1.51], [1, 0, 1, 0]),
    ('binary', _VALUES, [1, 0, 1, 0], [1, 0, 0, 1]),
    ('multilabel', _FOUR, [[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]], [0.75, 0]),
  ],
)
def test_right_is_the_likely_class_each_label_or_a_near_value(task, prediction, label, expected):
  spec = small_spec(task)
  found = right(spec, jnp.array(prediction, jnp.float32), jnp.array(label, label_of(spec).dtype))
  np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_valuation_predicts_like_a_concatenation():
  c = _case(ValuationResampling)
  r = c.run()
  np.testing.assert_allclose(r.outputs.prediction, _head(c.params, np.asarray(r.outputs.latents)), **CLOSE)


def test_values_are_shapley_values_of_being_right():
  c, seen = _case(ValuationResampling), set()
  for seed, target in itertools.product(range(4), range(3)):
    label = np.full(B, target, np.int32)
    r = c.run(inputs=inputs_of(c.spec, seed), label=label)
    z = np.asarray(r.outputs.latents)
    expected = _shapley(c.params, z, label)
    np.testing.assert_allclose(r.more[0], expected, atol=1e-5)
    # All of them share what all together are worth.
    np.testing.assert_allclose(expected.sum(1), 3 * (_head(c.params, z).argmax(1) == label), atol=1e-9)
    seen.update(expected.round(3).ravel())
  assert min(seen) < 0
  assert max(seen) > 1
  assert len(seen) > 4


def test_a_weak_modality_is_trained_alone_as_often_as_it_is_weak_and_all_samples_weigh_the_same():
  c = _case(ValuationResampling)
  label = np.array([0, 1, 2, 0], np.int32)
  r = c.run(label=label)
  z = np.asarray(r.outputs.latents)
  draws = np.asarray(jax.vmap(lambda key: jax.random.uniform(draw_key(c.model, key), (B, 3)))(_keys()))
  again = draws < np.tanh(np.maximum(1 - _shapley(c.params, z, label), 0))
  assert 0.1 < again.mean() < 0.9
  first = cross_entropy(_head(c.params, z), label)
  alone = np.stack([cross_entropy(_head(c.params, _among(z, [m])), label) for m in range(3)], 1)
  count = B + again.sum((1, 2))
  np.testing.assert_allclose(r.more[1]['task'], first.sum() / count, rtol=1e-4)
  np.testing.assert_allclose(r.more[1]['again'], (alone * again).sum((1, 2)) / count, rtol=1e-4)


def _stubborn(params):
  """A head that always says the first class, whatever it is shown."""
  bias = np.array([50, 0, 0], np.float32)
  return {**params, 'head_out': {**params['head_out'], 'bias': bias}}


def test_a_modality_worth_an_equal_share_is_not_seen_again():
  c = _case(ValuationResampling)
  r = c.run(_stubborn(c.params), label=np.zeros(B, np.int32))
  np.testing.assert_allclose(r.more[0], 1.0, rtol=1e-5)
  assert not r.more[1]['again'].any()


def test_what_is_seen_again_teaches_the_head_and_the_encoder_of_that_modality():
  c, kinds = _case(ValuationResampling), set()
  draws = np.asarray(jax.random.uniform(draw_key(c.model, jax.random.key(SEED)), (B, 3)))
  for sample in range(B):
    # Of one wrong sample everything is worth nothing, and what is right is not seen again.
    r = c.run(_stubborn(c.params), label=(np.arange(B) == sample).astype(np.int32))
    np.testing.assert_allclose(r.more[0], np.tile(np.arange(B) != sample, (3, 1)).T, atol=1e-5)
    gradient = r.jacobian['again']
    seen = {name for name, draw in zip(NAMES, draws[sample], strict=True) if draw < math.tanh(1)}
    assert {name for name, g in gradient['encoders'].items() if reaches(g)} == seen
    assert reaches(gradient['head_out']) == bool(seen)
    kinds.add(len(seen))
  assert kinds & {1, 2}

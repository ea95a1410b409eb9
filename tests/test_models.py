"""Every model keeps the shared contract: shapes, ranges, finite numbers whatever is missing, all switches of DREAM."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import jit, small_recipe, small_spec

from dream_jax.errors import UserError
from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix
from dream_jax.models.dream.dream import Dream, DreamSettings
from dream_jax.models.model import ORACLE_MASK
from dream_jax.models.objective import task_loss
from dream_jax.models.registry import METHODS, build, find_method
from dream_jax.spec import TASKS

_B = 4
# One method of each module and its options: what is injected makes no other model.
_TRAINED = tuple(
  {(method.module, method.options): name for name, method in METHODS.items() if method.module is not None}.values()
)
_CONTRIBUTIONS = ('dream', 'p-rmf', 'hme')
_UNIMODAL = (
  'dream', 'late', 'late-mlp+dropout', 'unimodal', 'momke', 'momke-blind', 'hme', 'ogm-ge+dropout', 'mmpareto+dropout',
)  # fmt: skip
_RECONSTRUCTIONS = ('dream', 'mmin', 'tfr-net', 'lnln', 'p-rmf')
_SIZES = {'width': 8, 'hidden': 8}
# The rest is slow: what most of them do beyond these has fast tests of its own (`test_*_baselines.py`). Regression and
# multiclass have nothing in common; the other two tasks are built like one of them, and looked at with these methods
# only. What a method makes of its latents does not depend on the task, so that three show regression for most.
_FAST = ('dream', 'concat+dropout', 'late-mlp+dropout', 'hme', 'momke-blind', 'unimodal', 'oracle+dropout')
_FAST_CASES = {(n, 'multiclass') for n in _FAST} | {(n, 'regression') for n in ('dream', 'oracle+dropout', 'unimodal')}
_METHODS = [pytest.param(n, marks=[] if n in _FAST else [pytest.mark.slow]) for n in _TRAINED]
_CASES = [
  pytest.param(n, t, marks=[] if (n, t) in _FAST_CASES else [pytest.mark.slow])
  for n in _TRAINED
  for t in TASKS
  if n in _FAST or t in ('multiclass', 'regression')
]


def _inputs(spec, seed=0, beyond=0):
  """Random inputs; positions beyond the lengths hold `beyond` (an id for tokens)."""
  rng = np.random.default_rng(seed)
  inputs = {}
  for m in spec.modalities:
    if m.kind == 'tokens':
      x = rng.integers(1, m.vocab_size, (_B, *m.shape)).astype(np.int32)
    else:
      x = rng.normal(size=(_B, *m.shape)).astype(np.float32)
    if m.has_length:
      length = np.array([m.shape[0], 1, 2, m.shape[0] - 1], np.int32)
      x[np.arange(m.shape[0]) >= length[:, None]] = beyond
      inputs[m.length_name] = length
    inputs[m.name] = x
  return inputs


def _nothing(spec):
  return {name: np.zeros_like(x) for name, x in _inputs(spec).items()}


def _label(spec, seed=1):
  rng = np.random.default_rng(seed)
  if spec.task == 'regression':
    return rng.normal(size=_B).astype(np.float32)
  if spec.task == 'multilabel':
    return rng.integers(0, 2, (_B, spec.num_outputs)).astype(np.float32)
  return rng.integers(0, max(2, spec.num_outputs), _B).astype(np.int32)


def _drawn(model, inputs):
  """Random parameters: much of DREAM starts at zero and would hide what it reads."""
  shapes = jax.eval_shape(lambda key: model.init({'params': key}, inputs, train=False)['params'], jax.random.key(0))
  rng = np.random.default_rng(5)
  return jax.tree.map(lambda p: jnp.asarray(rng.normal(scale=0.3, size=p.shape), p.dtype), shapes)


class _Case:
  """One method on one task, with its forward pass and the gradient of its loss compiled once."""

  def __init__(self, name, task, sequence_encoder='tcn'):
    self.method, self.spec = find_method(name), small_spec(task)
    self.settings = DreamSettings(**_SIZES, sequence_encoder=sequence_encoder)
    self.model = build(self.method, self.spec, self.settings)

    def everything(params, inputs, clean, label, kept, key):
      batch = {'inputs': inputs, 'clean': clean, 'label': label, 'kept': kept}
      outputs = self.model.apply({'params': params}, inputs, train=False)
      return outputs, self.model.gradient(params, batch, key)

    self.params = _drawn(self.model, self.told(_inputs(self.spec)))
    self._everything = jit(everything)

  def told(self, inputs):
    """The inputs, with the mask for a method that is told it."""
    mask = np.ones((_B, self.spec.num_modalities), np.float32)
    return {**inputs, ORACLE_MASK: mask} if self.method.uses_oracle else inputs

  def run(self, inputs, kept=None, clean=None):
    """(outputs, ((loss, terms), gradients))."""
    kept = np.array([[1, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]], np.float32) if kept is None else kept
    clean = inputs if clean is None else clean
    return self._everything(self.params, self.told(inputs), clean, _label(self.spec), kept, jax.random.key(1))


@pytest.fixture(scope='module')
def case():
  cached = functools.cache(_Case)
  return lambda name, task, encoder='tcn': cached(name, task, encoder)


def _finite(tree):
  return all(bool(np.isfinite(x).all()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(('name', 'task'), _CASES)
def test_outputs_have_the_documented_shapes_and_ranges(case, name, task):
  c = case(name, task)
  spec, m = c.spec, c.spec.num_modalities
  out, ((loss, terms), grads) = c.run(_inputs(spec))
  assert out.prediction.shape == (_B, spec.num_outputs)
  assert out.latents.shape == (_B, m, 8)
  for field in ('contributions', 'presence', 'gates', 'soft_mask'):
    value = getattr(out, field)
    assert (value is not None) == (c.method.name in (_CONTRIBUTIONS if field == 'contributions' else ('dream',)))
    if value is not None:
      assert value.shape == (_B, m)
      assert (np.asarray(value) >= 0).all()
      if field in ('presence', 'gates'):
        assert (np.asarray(value) <= 1 + 1e-6).all()
  assert (out.unimodal_predictions is not None) == (c.method.name in _UNIMODAL)
  if out.unimodal_predictions is not None:
    assert out.unimodal_predictions.shape == (_B, m, spec.num_outputs)
  assert (out.reconstructions is not None) == (c.method.name in _RECONSTRUCTIONS)
  if out.reconstructions is not None:
    assert out.reconstructions.shape == out.latents.shape
  assert jax.tree.structure(grads) == jax.tree.structure(c.params)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((out, grads)))
  assert loss.shape == ()
  assert all(term.shape == () for term in terms.values())
  assert _finite((out, loss, terms, grads))
  assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(('name', 'task'), _CASES)
def test_nothing_at_all_gives_finite_outputs_and_gradients(case, name, task):
  c = case(name, task)
  nothing = _nothing(c.spec)
  m = c.spec.num_modalities
  only_last = np.tile((np.arange(m) == m - 1).astype(np.float32), (_B, 1))
  for inputs, clean, kept in (
    (nothing, nothing, np.ones((_B, m), np.float32)),
    (nothing, _inputs(c.spec), only_last),
    (_inputs(c.spec), nothing, only_last),
  ):
    assert _finite(c.run(inputs, kept=kept, clean=clean))


@pytest.mark.parametrize('name', _METHODS)
def test_huge_values_do_not_overflow(case, name):
  c = case(name, 'multiclass')
  huge = {k: x * np.float32(1e4) if x.dtype == np.float32 else x for k, x in _inputs(c.spec).items()}
  assert _finite(c.run(huge))


@pytest.mark.parametrize('encoder', ['tcn', pytest.param('transformer', marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', ['dream', 'concat'])
def test_values_beyond_the_length_do_not_matter(case, name, encoder):
  c = case(name, 'multiclass', encoder)
  outputs = c.run(_inputs(c.spec))
  others = c.run(_inputs(c.spec, beyond=17))
  jax.tree.map(np.testing.assert_array_equal, outputs, others)
  # What lies inside does.
  inside = _inputs(c.spec)
  inside['audio'][0, -1] += 1
  assert not np.array_equal(c.run(inside)[0].prediction[0], outputs[0].prediction[0])


@pytest.mark.slow
def test_transformer_keeps_the_contract_too(case):
  c = case('dream', 'multiclass', 'transformer')
  assert _finite(c.run(_inputs(c.spec)))
  assert _finite(c.run(_nothing(c.spec)))


@pytest.mark.parametrize('name', _METHODS)
def test_apply_is_pure(case, name):
  c = case(name, 'multiclass')
  inputs = _inputs(c.spec)
  copies = jax.tree.map(np.copy, (c.params, inputs))
  first, second = c.run(inputs), c.run(inputs)
  jax.tree.map(np.testing.assert_array_equal, first, second)
  jax.tree.map(np.testing.assert_array_equal, copies, (c.params, inputs))
  # A sample's outputs are its own: whoever shares the batch.
  alone = _inputs(c.spec, seed=9)
  for k in alone:
    alone[k][0] = inputs[k][0]
  mixed = c.run(alone)[0]
  np.testing.assert_allclose(mixed.prediction[0], first[0].prediction[0], rtol=1e-5, atol=1e-6)
  assert not np.allclose(mixed.prediction[1], first[0].prediction[1])


def test_late_fusion_is_the_mean_of_the_heads(case):
  c = case('unimodal', 'regression')
  out, _ = c.run(_inputs(c.spec))
  np.testing.assert_allclose(out.prediction, np.mean(out.unimodal_predictions, axis=1), rtol=1e-5, atol=1e-6)


def test_initialisation_is_a_function_of_the_key():
  model = Dream(small_spec(names=('face', 'pose')), DreamSettings(**_SIZES))
  inputs = _inputs(model.spec)
  init = jit(lambda key: model.init({'params': key}, inputs, train=False)['params'])
  a, b, c = (init(jax.random.key(k)) for k in (3, 3, 4))
  jax.tree.map(np.testing.assert_array_equal, a, b)
  assert not all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(c), strict=True))


def test_unknown_method_is_told_the_known_ones():
  with pytest.raises(UserError, match=r"unknown method 'drem'.*dream"):
    find_method('drem')
  with pytest.raises(ValueError, match='trains no module'):
    build(find_method('majority'), small_spec(), DreamSettings())


# The switches of DREAM, on two cheap modalities, with parameters away from their start.

_ABLATIONS = {
  'full': {},
  'no recognition': {'recognise': False},
  'no agreement': {'agreement': False},
  'no assessment': {'assess': False},
  'certainty': {'game': 'certainty'},
  'leave one out': {'credit': 'leave_one_out'},
  'unimodal confidence': {'game': 'certainty', 'credit': 'confidence'},
  'presence alone': {'sharpness': 0.0, 'reconstruct': 'never'},
  'always reconstruct': {'reconstruct': 'always'},
  'never reconstruct': {'reconstruct': 'never'},
  'hard mask': {'fusion': 'hard_mask'},
  'uniform': {'fusion': 'uniform'},
  'posterior': {'fusion': 'posterior'},
  'posterior of everything': {'fusion': 'posterior', 'recognise': False, 'assess': False, 'reconstruct': 'never'},
}


# Whose gradients take a way that no other of these takes; to compile them takes most of the time.
_QUICK = ('full', 'no recognition', 'no assessment', 'unimodal confidence', 'posterior of everything', 'hard mask')


def _ablated(name, taught=False):
  """(model, params, trace, gradients of the loss, terms of it) of one ablation; the last two if `taught` or quick."""
  return _compiled_ablation(name, taught or name in _QUICK)


@functools.cache
def _compiled_ablation(name, taught):
  spec = small_spec(names=('face', 'pose'))
  model = Dream(spec, DreamSettings(**_SIZES, **_ABLATIONS[name]))
  inputs, kept = _inputs(spec), np.array([[1, 1], [0, 1], [1, 0], [1, 1]], np.float32)
  params = _drawn(model, inputs)

  def everything(params):
    trace = model.apply({'params': params}, inputs, train=False, method='trace')
    if not taught:
      return trace, None, None
    batch = {'inputs': inputs, 'clean': inputs, 'label': jnp.asarray(_label(spec)), 'kept': jnp.asarray(kept)}
    (_, terms), grads = model.gradient(params, batch, jax.random.key(1))
    return trace, grads, terms

  trace, grads, terms = jit(everything)(params)
  return model, params, trace, grads, terms


@pytest.mark.parametrize('name', [n if n in _QUICK else pytest.param(n, marks=pytest.mark.slow) for n in _ABLATIONS])
def test_every_ablation_trains_exactly_its_own_parts(name):
  model, params, trace, grads, terms = _ablated(name, taught=True)
  s = model.sizes
  assert _finite((trace.outputs, grads, terms))
  assert ('recogniser' in params) == s.recognise
  assert (trace.credit is not None) == s.assess
  assert ('reconstructor' in params) == (s.reconstruct != 'never')
  assert ('recognition' in terms) == s.recognise
  assert ('reconstruction' in terms) == ('confidence' in terms) == (s.reconstruct != 'never')
  for part, gradient in grads.items():
    assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient)), f'{part} learns nothing'


def test_switches_mean_what_they_say():
  outputs = {name: _ablated(name)[2].outputs for name in _ABLATIONS}
  np.testing.assert_array_equal(outputs['no recognition'].presence, 1.0)
  np.testing.assert_allclose(outputs['no assessment'].contributions, outputs['no assessment'].presence, rtol=1e-5)
  np.testing.assert_allclose(outputs['presence alone'].soft_mask, outputs['presence alone'].presence, rtol=1e-5)
  for one, other in itertools.combinations(('full', 'certainty', 'leave one out', 'unimodal confidence'), 2):
    assert not np.allclose(outputs[one].contributions, outputs[other].contributions, atol=1e-3), (one, other)
  np.testing.assert_array_equal(outputs['always reconstruct'].gates, 1.0)
  np.testing.assert_array_equal(outputs['never reconstruct'].gates, 0.0)
  assert outputs['never reconstruct'].reconstructions is None
  gates = np.asarray(outputs['full'].gates)
  assert ((gates > 0) & (gates < 1)).any()
  assert set(np.unique(outputs['hard mask'].soft_mask)) <= {0.0, 1.0}
  np.testing.assert_array_equal(outputs['uniform'].soft_mask, 1.0)
  assert not np.allclose(outputs['full'].soft_mask, np.round(outputs['full'].soft_mask))


@pytest.mark.parametrize(('name', 'alone'), [('full', False), ('leave one out', False), ('unimodal confidence', True)])
def test_credit_depends_on_other_modalities_unless_told_not_to(name, alone):
  model, params, trace, _, _ = _ablated(name)
  inputs = _inputs(model.spec)
  changed = {**inputs, 'pose': inputs['pose'] + 3.0}
  credit = jit(lambda p: model.apply({'params': p}, changed, train=False, method='trace').credit)(params)
  assert np.allclose(credit[:, 0], trace.credit[:, 0], atol=1e-5) == alone
  assert not np.allclose(credit[:, 1], trace.credit[:, 1], atol=1e-3)


def test_a_contribution_is_what_a_modality_is_worth_where_it_is_there():
  model, _, trace, _, _ = _ablated('full')
  merit = np.maximum(np.asarray(trace.credit), 0.0)
  wanted = model.spec.num_modalities * merit * np.asarray(trace.outputs.presence)
  np.testing.assert_allclose(trace.outputs.contributions, wanted, rtol=1e-5, atol=1e-7)


def test_low_contribution_opens_the_gate():
  """Without assessment a contribution is the presence alone, so the gate follows from it."""
  model, _, trace, _, _ = _ablated('no assessment')
  s, presence = model.sizes, np.asarray(trace.outputs.presence)
  wanted = 1 / (1 + np.exp(-(s.gate_threshold - presence) / s.gate_temperature))
  np.testing.assert_allclose(trace.outputs.gates, wanted, rtol=1e-3, atol=1e-5)


def test_absent_modality_contributes_nothing():
  model, params, _, _, _ = _ablated('full')
  inputs = _inputs(model.spec)
  certain = {**params, 'recogniser': jax.tree.map(jnp.zeros_like, params['recogniser'])}
  # All trust in the coalition {0}.
  name = next(k for k, v in params['recogniser'].items() if getattr(v, 'shape', None) == (3,))
  certain['recogniser'] = {**certain['recogniser'], name: jnp.asarray([50.0, -50.0, -50.0])}
  out = jit(lambda p: model.apply({'params': p}, inputs, train=False))(certain)
  np.testing.assert_allclose(out.presence, np.tile([1.0, 0.0], (_B, 1)), atol=1e-5)
  np.testing.assert_allclose(out.contributions[:, 1], 0.0, atol=1e-4)
  assert (np.asarray(out.gates)[:, 1] > 0.9).all()


def test_posterior_over_coalitions_is_one_and_presence_its_margin():
  _, _, trace, _, _ = _ablated('full')
  posterior = np.exp(np.asarray(trace.log_coalition))
  np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(posterior @ coalition_matrix(2), trace.outputs.presence, rtol=1e-5)
  # Not recognising is being certain of all slots, so its posterior mixture is the fusion of everything.
  model, params, trace, _, _ = _ablated('posterior of everything')
  inputs = _inputs(model.spec)
  uniform = Dream(model.spec, dataclasses.replace(model.sizes, fusion='uniform'))
  wanted = jit(lambda p: uniform.apply({'params': p}, inputs, train=False).prediction)(params)
  np.testing.assert_allclose(trace.outputs.prediction, jax.nn.log_softmax(wanted), rtol=1e-4, atol=1e-5)


def test_one_modality_alone_has_no_agreement_to_show():
  """With all of the recogniser's parameters zero only agreement is left: log P(S | x) is A(sum) - sum A and a
  constant, so single coalitions are equally likely whatever they say, and a pair gains exactly by agreeing."""
  model, params, _, _, _ = _ablated('full')
  outspoken = jax.tree.map(lambda p: p * 10.0, params['heads'])
  blank = {**params, 'heads': outspoken, 'recogniser': jax.tree.map(jnp.zeros_like, params['recogniser'])}
  inputs = _inputs(model.spec)
  trace = jit(lambda p: model.apply({'params': p}, inputs, train=False, method='trace'))(blank)
  log_posterior = np.asarray(trace.log_coalition)
  rows = coalition_matrix(2)
  single = [i for i, row in enumerate(rows) if row.sum() == 1]
  np.testing.assert_allclose(log_posterior[:, single[0]], log_posterior[:, single[1]], atol=1e-5)
  prior = params['prior']
  eta = np.asarray(trace.unimodal_evidence)
  a = functools.partial(evidence.log_partition, model.spec, prior)
  wanted = np.asarray(a(jnp.asarray(eta.sum(1)))) - np.asarray(a(jnp.asarray(eta))).sum(1)
  np.testing.assert_allclose(log_posterior[:, -1] - log_posterior[:, single[0]], wanted, rtol=1e-4, atol=1e-4)
  assert np.abs(wanted).max() > 0.05


def test_heads_speak_as_loud_as_the_scale_says():
  """With the same parameters evidence is a tenth, wherever it is read."""
  loud, params, before, _, _ = _ablated('full')
  inputs = _inputs(loud.spec)
  quiet = Dream(loud.spec, DreamSettings(**_SIZES, evidence_scale=0.1))

  def read(params):
    trace = quiet.apply({'params': params}, inputs, train=False, method='trace')
    return trace, quiet.apply({'params': params}, trace.outputs.latents, method='unimodal')

  trace, alone = jit(read)(params)
  np.testing.assert_allclose(trace.unimodal_evidence, 0.1 * before.unimodal_evidence, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(trace.outputs.unimodal_predictions, alone, rtol=1e-4, atol=1e-6)
  assert not np.allclose(trace.outputs.prediction, before.outputs.prediction, atol=1e-3)


def test_the_scale_is_of_what_heads_say_and_not_of_the_precision_that_follows():
  spec = small_spec('regression', names=('face', 'pose'))
  model, inputs = Dream(spec, DreamSettings(**_SIZES, evidence_scale=1e-6)), _inputs(spec)

  def precision(key):
    params = model.init(key, inputs)['params']
    return model.apply({'params': params}, inputs, train=False, method='trace').unimodal_evidence[..., 1]

  np.testing.assert_allclose(jit(precision)(jax.random.key(0)), np.log(2.0), rtol=1e-3)  # softplus(0)


def test_task_loss_cannot_bend_presence_or_shares():
  spec = small_spec(names=('face', 'pose'))
  model, params, _, _, _ = _ablated('full')
  inputs, label = _inputs(spec), _label(spec)
  grads = jit(
    jax.grad(
      lambda p: task_loss(
        spec, model.apply({'params': p}, inputs, train=True, rngs={'dropout': jax.random.key(0)}).prediction, label
      )
    )
  )(params)
  assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(grads['recogniser']))
  confidence = [grads['reconstructor'][name] for name in ('confidence_in', 'confidence_out')]
  assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(confidence))
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads['encoders']))
  credit = jit(jax.grad(lambda p: model.apply({'params': p}, inputs, train=False, method='trace').credit.sum()))(params)
  assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(credit))


@pytest.mark.parametrize(('name', 'counts'), [('full', True), ('always reconstruct', False)])
def test_evidence_of_a_reconstruction_is_not_counted_again(name, counts):
  model, params, _, _, _ = _ablated(name)
  inputs = _inputs(model.spec)
  grads = jit(jax.grad(lambda p: jnp.square(model.apply({'params': p}, inputs, train=False).prediction).sum()))(params)
  assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(grads['heads'])) == counts
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads['reconstructor']['kernel']))


def test_recipe_reaches_the_model():
  recipe = small_recipe(model__fusion='uniform', model__width=8)
  model = build(find_method('dream'), small_spec(), recipe.model)
  assert (model.sizes.fusion, model.sizes.width) == ('uniform', 8)

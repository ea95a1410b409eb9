"""MMIN, TFR-Net and MoMKE compute what their papers say, and learn from removed slots alone where they rebuild."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import jit, small_spec

from dream_jax.models.baselines.concat import ORACLE_MASK
from dream_jax.models.baselines.mmin import CascadeResidualAutoencoder, Mmin
from dream_jax.models.baselines.momke import Experts, Momke
from dream_jax.models.baselines.tfr_net import Extractor, GateEncoder, TfrNet
from dream_jax.models.encoders import Tokens
from dream_jax.models.objective import task_loss
from dream_jax.models.outputs import Outputs
from dream_jax.models.sizes import Sizes

_B, _D = 4, 8
_STILL = Sizes(width=_D, hidden=6, dropout=0.0, head_dropout=0.0)
_KEPT = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]], np.float32)
_NAMES = ('text', 'face', 'pose')  # of unequal numbers of tokens
# Weights that are not the default ones, and few layers: compiling them is most of the time.
_OPTIONS = {
  Mmin: {'imagination': 3.0, 'cycle': 0.5, 'blocks': 2},
  TfrNet: {'reconstruction': 2.5, 'layers': 1},
  Momke: {'unimodal': 0.4, 'depth': 2},
}
_CLOSE = {'rtol': 2e-5, 'atol': 2e-6}


def _inputs(spec, seed=0):
  rng = np.random.default_rng(seed)
  inputs = {}
  for m in spec.modalities:
    if m.kind == 'tokens':
      inputs[m.name] = rng.integers(1, m.vocab_size, (_B, *m.shape)).astype(np.int32)
    else:
      inputs[m.name] = rng.normal(size=(_B, *m.shape)).astype(np.float32)
    if m.has_length:
      inputs[m.length_name] = np.array([m.shape[0], 1, 2, m.shape[0] - 1], np.int32)
  return inputs


def _label(spec):
  rng = np.random.default_rng(1)
  if spec.task == 'regression':
    return rng.normal(size=_B).astype(np.float32)
  if spec.task == 'multilabel':
    return rng.integers(0, 2, (_B, spec.num_outputs)).astype(np.float32)
  return rng.integers(0, max(2, spec.num_outputs), _B).astype(np.int32)


def _told(inputs, mask=_KEPT):
  return {**inputs, ORACLE_MASK: np.asarray(mask, np.float32)}


def _batch(spec, kept=_KEPT, inputs=None, clean=None):
  inputs = _inputs(spec) if inputs is None else inputs
  clean = _inputs(spec, seed=3) if clean is None else clean
  return {'inputs': _told(inputs, kept), 'clean': clean, 'label': _label(spec), 'kept': np.asarray(kept, np.float32)}


def _drawn(init, *args, **kwargs):
  """Random parameters, biases too, so that no part of an equation is zero by chance."""
  shapes = jax.eval_shape(lambda key: init({'params': key}, *args, **kwargs)['params'], jax.random.key(0))
  rng = np.random.default_rng(5)
  return jax.tree.map(lambda p: rng.normal(scale=0.3, size=p.shape).astype(np.float32), shapes)


class _Results(NamedTuple):
  """What one call of a method without dropout gives on a batch.

  Attributes:
    outputs: of the batch's inputs.
    terms: of the loss.
    jacobian: {term: its gradient by the parameters}.
    slope: {term: its gradient by the complete content of one modality}.
    seen: what the encoders make of the inputs.
    truth: what they make of the complete ones.
    rebuilt: TFR-Net's tokens.
  """

  outputs: Outputs
  terms: dict
  jacobian: dict
  slope: dict
  seen: jax.Array | Tokens
  truth: jax.Array | Tokens
  rebuilt: jax.Array | None


class _Case:
  """A method without dropout, compiled once."""

  def __init__(self, module):
    self.spec = small_spec(names=_NAMES)
    self.model = module(self.spec, _STILL, **_OPTIONS[module])
    self.params = _drawn(self.model.init, _told(_inputs(self.spec)), train=False)
    self._run = jit(self._everything)

  def run(self, **batch):
    return self._run(self.params, _batch(self.spec, **batch))

  def _everything(self, params, batch):
    def losses(params, pose):
      clean = {**batch['clean'], 'pose': pose}
      terms = self.model.loss(params, {**batch, 'clean': clean}, jax.random.key(2))[1]
      return terms, terms

    jacobian, terms = jax.jacrev(losses, argnums=(0, 1), has_aux=True)(params, batch['clean']['pose'])

    def parts(model, inputs, clean):
      outputs, rebuilt = model.trace(inputs, train=False) if isinstance(model, TfrNet) else (model(inputs), None)
      if isinstance(model, Momke):
        return outputs, outputs.latents, outputs.latents, rebuilt
      return outputs, model.encoders(inputs, train=False), model.encoders(clean, train=False), rebuilt

    outputs, seen, truth, rebuilt = self.model.apply({'params': params}, batch['inputs'], batch['clean'], method=parts)
    each, slope = ({name: pair[i] for name, pair in jacobian.items()} for i in range(2))
    return _Results(outputs, terms, each, slope, seen, truth, rebuilt)


_case = functools.cache(_Case)


def _gelu(x):
  return np.asarray(jax.nn.gelu(x))


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def _dense(p, x, *slot):
  """A dense layer, or that of one slot of many."""
  return x @ p['kernel'][slot] + p['bias'][slot]


def _norm(x):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def _reaches(gradient):
  return any(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def _reached(jacobian):
  """{term: names of the parts of the model that it teaches}."""
  return {term: {part for part, g in gradient.items() if _reaches(g)} for term, gradient in jacobian.items()}


# What the three share.


def _with_and_without(spec):
  """(inputs, complete inputs), either or both of them all zero."""
  inputs = _inputs(spec)
  nothing = {name: np.zeros_like(x) for name, x in inputs.items()}
  return (inputs, nothing), (nothing, inputs), (nothing, nothing)


@pytest.mark.parametrize('module', [Mmin, TfrNet, Momke])
def test_every_term_is_finite_with_nothing_there(module):
  c = _case(module)
  for inputs, clean in _with_and_without(c.spec):
    r = c.run(inputs=inputs, clean=clean)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(r))
    assert all(_reaches(gradient) for gradient in r.jacobian.values())


# Classification into one of several is above; the two slow ones differ from them in the loss alone.
@pytest.mark.parametrize(
  'task', ['regression', *(pytest.param(t, marks=pytest.mark.slow) for t in ('binary', 'multilabel'))]
)
@pytest.mark.parametrize('module', [Mmin, TfrNet, Momke])
def test_every_task_trains(module, task):
  spec, kept = small_spec(task, ('face', 'pose')), _KEPT[:, :2]
  model = module(spec, Sizes(width=_D, hidden=6), **_OPTIONS[module])
  params = _drawn(model.init, _told(_inputs(spec), kept), train=False)
  run = jit(model.gradient)
  for inputs, clean in _with_and_without(spec):
    result = run(params, _batch(spec, kept, inputs, clean), jax.random.key(1))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))
    assert _reaches(result[1])


@pytest.mark.parametrize(('module', 'name'), [(Mmin, 'imagination'), (TfrNet, 'reconstruction')])
def test_rebuilding_learns_from_removed_slots_alone_and_never_changes_the_prediction(module, name):
  c = _case(module)
  base = c.run().terms
  assert base[name] > 0.0
  complete = c.run(kept=np.ones_like(_KEPT), inputs=_inputs(c.spec)).terms
  assert complete == {**dict.fromkeys(base, 0.0), 'task': base['task']}

  def with_pose_of(sample):
    clean = _inputs(c.spec, seed=3)
    clean['pose'][sample] += np.array([3, -1, 0, 2], np.float32)
    return c.run(clean=clean).terms

  kept, removed = with_pose_of(0), with_pose_of(1)
  np.testing.assert_allclose(kept[name], base[name], rtol=1e-6)
  assert abs(removed[name] - base[name]) > 1e-4
  assert kept['task'] == removed['task'] == base['task']


@pytest.mark.parametrize('module', [Mmin, TfrNet])
def test_what_is_to_be_rebuilt_is_a_fixed_target(module):
  slope = _case(module).run().slope
  assert not _reaches(slope)


def test_weights_are_the_published_ones():
  spec = small_spec()
  assert (Mmin(spec).imagination, Mmin(spec).cycle, Mmin(spec).blocks) == (4.0, 2.0, 5)
  assert (Momke(spec).unimodal, Momke(spec).depth, Momke(spec).oracle) == (1.0, 4, True)


# MMIN.


def _cascade(p, h):
  """(imagined, codes) by the paper's equations: block k sees h plus all corrections so far."""
  x = np.asarray(h).reshape(len(h), -1)
  corrections, codes = [], []
  for k in range(len(p) // 4):
    total = x + sum(corrections)
    codes.append(_dense(p[f'encode{k}_out'], _gelu(_dense(p[f'encode{k}_in'], total))))
    corrections.append(_dense(p[f'decode{k}_out'], _gelu(_dense(p[f'decode{k}_in'], codes[-1]))))
  return (x + sum(corrections)).reshape(h.shape), np.concatenate(codes, -1)


def test_mmin_predicts_from_the_codes_of_the_cascade():
  c = _case(Mmin)
  out = c.run().outputs
  imagined, codes = _cascade(c.params['forth'], out.latents)
  assert codes.shape == (_B, 2 * _D)
  np.testing.assert_allclose(out.reconstructions, imagined, **_CLOSE)
  expected = _dense(c.params['head_out'], _gelu(_dense(c.params['head_in'], codes)))
  np.testing.assert_allclose(out.prediction, expected, **_CLOSE)


def test_mmin_imagines_forth_and_back():
  c = _case(Mmin)
  r = c.run()
  imagined, _ = _cascade(c.params['forth'], r.seen)
  removed = _KEPT == 0
  back, _ = _cascade(c.params['back'], np.where(removed[..., None], imagined, 0.0))
  np.testing.assert_allclose(r.terms['imagination'], 3 * np.square(imagined - r.truth)[removed].mean(), rtol=1e-4)
  available = ~removed & removed.any(1, keepdims=True)
  assert not available[2].any()
  np.testing.assert_allclose(r.terms['cycle'], 0.5 * np.square(back - r.truth)[available].mean(), rtol=1e-4)


def test_mmin_imagines_back_in_training_only():
  reached = _reached(_case(Mmin).run().jacobian)
  assert reached['cycle'] == {'encoders', 'forth', 'back'}
  assert reached['imagination'] == {'encoders', 'forth'}
  assert reached['task'] == {'encoders', 'forth', 'head_in', 'head_out'}


def test_a_block_of_the_cascade_is_a_residual():
  h = np.random.default_rng(0).normal(size=(_B, 3, _D)).astype(np.float32)
  module = CascadeResidualAutoencoder(6, 5, 2)
  params = jax.tree.map(np.zeros_like, _drawn(module.init, h))
  imagined, codes = module.apply({'params': params}, h)
  np.testing.assert_array_equal(imagined, h)
  assert codes.shape == (_B, 10)


# TFR-Net.


def _tokens(seed=0):
  """Tokens of three modalities; one sample has none of the second."""
  rng = np.random.default_rng(seed)
  mask = np.arange(5) < np.array([[5, 3, 1], [2, 0, 5], [1, 1, 1], [4, 2, 3]])[..., None]
  values = rng.normal(size=(*mask.shape, _D)).astype(np.float32)
  return values * mask[..., None], mask


def _extract(p, values, mask):
  """[B, T, M, M D], one sample and pair of modalities at a time."""
  b, m, t, d = values.shape
  heads, size = 4, d // 4
  tokens = values + p['position'][None]
  result = np.zeros((b, t, m, m * d), np.float32)
  for i in range(b):
    for query in range(m):
      for key in range(m):
        x, pair = tokens[i, query], (query, key)
        for layer in (p[f'attention{n}'] for n in range(len(p) - 1)):
          source = _norm(x if query == key else tokens[i, key])[mask[i, key]]
          asked = _dense(layer['query'], _norm(x), *pair)
          keys, said = np.split(_dense(layer['key_value'], source, *pair), 2, axis=-1)
          heard = np.zeros_like(x)
          for h in range(heads if len(source) else 0):
            part = slice(h * size, (h + 1) * size)
            heard[:, part] = _softmax(asked[:, part] @ keys[:, part].T / np.sqrt(size)) @ said[:, part]
          x = x + _dense(layer['out'], heard, *pair)
          x = x + _dense(layer['mlp_out'], _gelu(_dense(layer['mlp_in'], _norm(x), *pair)), *pair)
        result[i, :, query, key * d : (key + 1) * d] = x
  return result


def test_tfr_net_attends_within_and_between_modalities():
  values, mask = _tokens()
  module = Extractor(2, 4, 0.0)
  params = _drawn(module.init, Tokens(values, mask), train=False)
  run = jit(lambda values: module.apply({'params': params}, Tokens(values, jnp.asarray(mask)), train=False))
  h = run(values)
  np.testing.assert_allclose(h, _extract(params, values, mask), rtol=1e-3, atol=1e-4)
  # What lies beyond a sequence is asked by nobody.
  beyond = run(np.where(mask[..., None], values, np.float32(7)))
  inside = mask.swapaxes(1, 2)
  np.testing.assert_allclose(np.asarray(beyond)[inside], np.asarray(h)[inside], **_CLOSE)


def test_tfr_net_predicts_and_rebuilds_from_what_attention_extracts():
  c = _case(TfrNet)
  r, p = c.run(), c.params
  h = _extract(p['extractor'], np.asarray(r.seen.values), np.asarray(r.seen.mask))
  rebuilt = [_dense(p['generators']['out'], _gelu(_dense(p['generators']['in'], h[:, :, m], m)), m) for m in range(3)]
  np.testing.assert_allclose(r.rebuilt, np.stack(rebuilt, 1), rtol=1e-3, atol=1e-4)
  gated = np.asarray(GateEncoder(_D).apply({'params': p['gate_encoder']}, h, r.seen.mask)).reshape(_B, -1)
  expected = _dense(p['head_out'], _gelu(_dense(p['head_in'], gated)))
  np.testing.assert_allclose(r.outputs.prediction, expected, rtol=1e-3, atol=1e-4)


def test_tfr_net_gates_tokens_by_their_neighbours():
  _, mask = _tokens()
  h = np.random.default_rng(2).normal(size=(_B, 5, 3, 7)).astype(np.float32)
  module = GateEncoder(_D)
  p = _drawn(module.init, h, mask)
  r = np.asarray(module.apply({'params': p}, h, mask))
  expected = np.zeros((_B, 3, _D), np.float32)
  for i in range(_B):
    for m in range(3):
      mine = h[i, mask[i, m], m]  # only what is there
      u = _dense(p['context'], mine, m)
      padded = np.pad(u, ((1, 1), (0, 0)))
      gate = _sigmoid(_dense(p['gate'], np.concatenate([padded[:-2], u, padded[2:]], -1), m))
      each = np.tanh(_dense(p['out'], np.concatenate([mine, gate * np.tanh(u)], -1), m))
      expected[i, m] = each.max(0) if len(each) else 0.0
  assert not mask[1, 1].any()
  np.testing.assert_allclose(r, expected, **_CLOSE)


def test_tfr_net_rebuilds_the_tokens_of_removed_slots():
  r = _case(TfrNet).run()
  distance = np.abs(np.asarray(r.rebuilt) - np.asarray(r.truth.values))
  error = np.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean(-1)
  missing = np.asarray(r.truth.mask) & (_KEPT == 0)[..., None]
  assert (distance[missing] < 1).any()
  assert (distance[missing] > 1).any()
  expected = 2.5 * sum(error[:, m][missing[:, m]].mean() for m in range(3))
  np.testing.assert_allclose(r.terms['reconstruction'], expected, rtol=1e-4)


def test_tfr_net_predicts_without_what_it_rebuilds():
  reached = _reached(_case(TfrNet).run().jacobian)
  assert reached['task'] == {'encoders', 'extractor', 'gate_encoder', 'head_in', 'head_out'}
  assert reached['reconstruction'] == {'encoders', 'extractor', 'generators'}


def test_tfr_net_takes_a_width_that_its_heads_do_not_divide():
  tokens = Tokens(np.ones((2, 2, 3, 10), np.float32), np.ones((2, 2, 3), bool))
  module = Extractor(1, 4, 0.0)
  h = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), tokens, train=False)[0])
  assert h.shape == (2, 3, 2, 20)


# MoMKE.


def _expert(p, k, x):
  """What expert k makes of latents [B, D]; branches are halved."""
  for i in range(len(p) // 3):
    a = _dense(p[f'value{i}'], x, k)
    x = x + 0.5 * (a + _dense(p[f'mlp{i}_out'], _gelu(_dense(p[f'mlp{i}_in'], a, k)), k))
  return x


def _mixture(c, z, mask):
  """(prediction, unimodal predictions) of latents [B, M, D] by the paper's equations."""
  p, mixed, unimodal = c.params, [], []
  for m in range(3):
    trust = _softmax(_dense(p['router']['out'], _gelu(_dense(p['router']['in'], z[:, m], m)), m))
    made = [_expert(p['experts'], k, z[:, m]) for k in range(3)]
    mixed.append(mask[:, m : m + 1] * sum(trust[:, k : k + 1] * made[k] for k in range(3)))
    unimodal.append(_dense(p['heads'], made[m], m))
  joint = np.concatenate(mixed, -1)
  return _dense(p['out'], joint + np.maximum(_dense(p['joint'], joint), 0)), np.stack(unimodal, 1)


def test_momke_mixes_all_experts_on_every_available_modality():
  c = _case(Momke)
  r = c.run()
  prediction, unimodal = _mixture(c, np.asarray(r.seen), _KEPT)
  np.testing.assert_allclose(r.outputs.prediction, prediction, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(r.outputs.unimodal_predictions, unimodal, rtol=1e-4, atol=1e-4)
  label = jnp.asarray(_label(c.spec))
  np.testing.assert_allclose(r.terms['task'], task_loss(c.spec, jnp.asarray(prediction), label), rtol=1e-4)
  # Untold, it takes all of them as there.
  untold = jit(Momke(c.spec, _STILL, oracle=False, depth=2).apply)({'params': c.params}, _inputs(c.spec))
  prediction, _ = _mixture(c, np.asarray(r.seen), np.ones_like(_KEPT))
  np.testing.assert_allclose(untold.prediction, prediction, rtol=1e-4, atol=1e-4)


def test_momke_reads_nothing_of_a_slot_that_it_is_told_is_missing():
  c = _case(Momke)
  changed = _inputs(c.spec)
  changed['face'] += 5
  before, after = c.run().outputs.prediction, c.run(inputs=changed).outputs.prediction
  assert (np.abs(before - after).max(-1) > 0).tolist() == (_KEPT[:, 1] == 1).tolist()


def test_momke_teaches_experts_their_own_modality_where_it_is_intact():
  c = _case(Momke)
  r = c.run()
  assert _reached(r.jacobian)['unimodal'] == {'encoders', 'experts', 'heads'}
  # The loss is the sum over modalities of the mean over intact slots.
  logp = np.asarray(jax.nn.log_softmax(r.outputs.unimodal_predictions))
  each = -np.stack([logp[i, :, label] for i, label in enumerate(_label(c.spec))])
  expected = 0.4 * sum(each[_KEPT[:, m] == 1, m].mean() for m in range(3))
  np.testing.assert_allclose(r.terms['unimodal'], expected, rtol=1e-4)
  # With one modality left everywhere only its expert learns, and only its encoder.
  gradient = c.run(kept=np.tile(np.array([0, 0, 1], np.float32), (_B, 1))).jacobian['unimodal']
  kernel = np.abs(gradient['experts']['value0']['kernel']).max((1, 2))
  assert (kernel > 0).tolist() == [False, False, True]
  assert {name for name, g in gradient['encoders'].items() if _reaches(g)} == {'pose'}


def test_every_expert_learns_from_every_modality():
  c = _case(Momke)
  gradient = c.run(kept=np.tile(np.array([0, 0, 1], np.float32), (_B, 1))).jacobian['task']
  kernel = np.abs(gradient['experts']['value0']['kernel']).max((1, 2))
  assert (kernel > 0).all()


def test_experts_start_without_amplifying_latents():
  z = np.random.default_rng(0).normal(size=(64, 3, 32)).astype(np.float32)
  module = Experts(4)
  out, _ = jit(module.init_with_output)(jax.random.key(1), z)
  assert out.shape == (64, 3, 3, 32)
  assert 1.2 < out.std() < 2.5

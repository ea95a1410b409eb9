"""MMIN, TFR-Net and MoMKE compute what their papers say, and learn from removed slots alone where they rebuild."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from baseline_cases import (
  CLOSE,
  EVERY_TASK,
  KEPT,
  STILL,
  B,
  Case,
  D,
  dense,
  drawn,
  finite,
  gelu,
  inputs_of,
  label_of,
  mlp,
  norm,
  reached,
  reaches,
  sigmoid,
  softmax,
  steps,
  with_and_without,
)
from small_runs import jit, small_spec

from dream_jax.models.baselines.mmin import CascadeResidualAutoencoder, Mmin
from dream_jax.models.baselines.momke import Experts, Momke
from dream_jax.models.baselines.tfr_net import Extractor, GateEncoder, TfrNet
from dream_jax.models.encoders import Tokens
from dream_jax.models.objective import task_loss
from dream_jax.models.outputs import Outputs

# Weights that are not the default ones, and few layers: compiling them is most of the time.
_OPTIONS = {
  Mmin: {'imagination': 3.0, 'cycle': 0.5, 'blocks': 2},
  TfrNet: {'reconstruction': 2.5, 'layers': 1},
  Momke: {'unimodal': 0.4, 'depth': 2},
}


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


class _Case(Case):
  """MMIN, TFR-Net or MoMKE."""

  def everything(self, params, batch):
    terms, jacobian, slope = self.taught(params, batch)

    def parts(model, inputs, clean):
      outputs, rebuilt = model.trace(inputs, train=False) if isinstance(model, TfrNet) else (model(inputs), None)
      if isinstance(model, Momke):
        return outputs, outputs.latents, outputs.latents, rebuilt
      return outputs, model.encoders(inputs, train=False), model.encoders(clean, train=False), rebuilt

    outputs, seen, truth, rebuilt = self.model.apply({'params': params}, batch['inputs'], batch['clean'], method=parts)
    return _Results(outputs, terms, jacobian, slope, seen, truth, rebuilt)


@functools.cache
def _case(module):
  return _Case(module, _OPTIONS[module])


# What the three share.


@pytest.mark.parametrize('module', [Mmin, TfrNet, Momke])
def test_every_term_is_finite_with_nothing_there(module):
  c = _case(module)
  for inputs, clean in with_and_without(c.spec):
    r = c.run(inputs=inputs, clean=clean)
    assert finite(r)
    assert all(reaches(gradient) for gradient in r.jacobian.values())


@EVERY_TASK
@pytest.mark.parametrize('module', [Mmin, TfrNet, Momke])
def test_every_task_trains(module, task):
  for result in steps(module, task, _OPTIONS[module]):
    assert finite(result)
    assert reaches(result[1])


@pytest.mark.parametrize(('module', 'name'), [(Mmin, 'imagination'), (TfrNet, 'reconstruction')])
def test_rebuilding_learns_from_removed_slots_alone_and_never_changes_the_prediction(module, name):
  c = _case(module)
  base = c.run().terms
  assert base[name] > 0.0
  complete = c.run(kept=np.ones_like(KEPT), inputs=inputs_of(c.spec)).terms
  assert complete == {**dict.fromkeys(base, 0.0), 'task': base['task']}

  def with_pose_of(sample):
    clean = inputs_of(c.spec, seed=3)
    clean['pose'][sample] += np.array([3, -1, 0, 2], np.float32)
    return c.run(clean=clean).terms

  kept, removed = with_pose_of(0), with_pose_of(1)
  np.testing.assert_allclose(kept[name], base[name], rtol=1e-6)
  assert abs(removed[name] - base[name]) > 1e-4
  assert kept['task'] == removed['task'] == base['task']


@pytest.mark.parametrize('module', [Mmin, TfrNet])
def test_what_is_to_be_rebuilt_is_a_fixed_target(module):
  slope = _case(module).run().slope
  assert not reaches(slope)


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
    codes.append(dense(p[f'encode{k}_out'], gelu(dense(p[f'encode{k}_in'], total))))
    corrections.append(dense(p[f'decode{k}_out'], gelu(dense(p[f'decode{k}_in'], codes[-1]))))
  return (x + sum(corrections)).reshape(h.shape), np.concatenate(codes, -1)


def test_mmin_predicts_from_the_codes_of_the_cascade():
  c = _case(Mmin)
  out = c.run().outputs
  imagined, codes = _cascade(c.params['forth'], out.latents)
  assert codes.shape == (B, 2 * D)
  np.testing.assert_allclose(out.reconstructions, imagined, **CLOSE)
  expected = dense(c.params['head_out'], gelu(dense(c.params['head_in'], codes)))
  np.testing.assert_allclose(out.prediction, expected, **CLOSE)


def test_mmin_imagines_forth_and_back():
  c = _case(Mmin)
  r = c.run()
  imagined, _ = _cascade(c.params['forth'], r.seen)
  removed = KEPT == 0
  back, _ = _cascade(c.params['back'], np.where(removed[..., None], imagined, 0.0))
  np.testing.assert_allclose(r.terms['imagination'], 3 * np.square(imagined - r.truth)[removed].mean(), rtol=1e-4)
  available = ~removed & removed.any(1, keepdims=True)
  assert not available[2].any()
  np.testing.assert_allclose(r.terms['cycle'], 0.5 * np.square(back - r.truth)[available].mean(), rtol=1e-4)


def test_mmin_imagines_back_in_training_only():
  parts = reached(_case(Mmin).run().jacobian)
  assert parts['cycle'] == {'encoders', 'forth', 'back'}
  assert parts['imagination'] == {'encoders', 'forth'}
  assert parts['task'] == {'encoders', 'forth', 'head_in', 'head_out'}


def test_a_block_of_the_cascade_is_a_residual():
  h = np.random.default_rng(0).normal(size=(B, 3, D)).astype(np.float32)
  module = CascadeResidualAutoencoder(6, 5, 2)
  params = jax.tree.map(np.zeros_like, drawn(module.init, h))
  imagined, codes = module.apply({'params': params}, h)
  np.testing.assert_array_equal(imagined, h)
  assert codes.shape == (B, 10)


# TFR-Net.


def _tokens(seed=0):
  """Tokens of three modalities; one sample has none of the second."""
  rng = np.random.default_rng(seed)
  mask = np.arange(5) < np.array([[5, 3, 1], [2, 0, 5], [1, 1, 1], [4, 2, 3]])[..., None]
  values = rng.normal(size=(*mask.shape, D)).astype(np.float32)
  return values * mask[..., None], mask


def _extract(p, values, mask):
  """[M, B, T, M D], one sample and pair of modalities at a time."""
  b, m, t, d = values.shape
  heads, size = 4, d // 4
  tokens = values + p['position'][None]
  result = np.zeros((m, b, t, m * d), np.float32)
  for i in range(b):
    for query in range(m):
      for key in range(m):
        x, pair = tokens[i, query], (query, key)
        for layer in (p[f'attention{n}'] for n in range(len(p) - 1)):
          source = norm(x if query == key else tokens[i, key])[mask[i, key]]
          asked = dense(layer['query'], norm(x), *pair)
          keys, said = np.split(dense(layer['key_value'], source, *pair), 2, axis=-1)
          heard = np.zeros_like(x)
          for h in range(heads if len(source) else 0):
            part = slice(h * size, (h + 1) * size)
            heard[:, part] = softmax(asked[:, part] @ keys[:, part].T / np.sqrt(size)) @ said[:, part]
          x = x + dense(layer['out'], heard, *pair)
          x = x + dense(layer['mlp_out'], gelu(dense(layer['mlp_in'], norm(x), *pair)), *pair)
        result[query, i, :, key * d : (key + 1) * d] = x
  return result


def test_tfr_net_attends_within_and_between_modalities():
  values, mask = _tokens()
  module = Extractor(2, 4, 0.0, 'float32')
  params = drawn(module.init, Tokens(values, mask), train=False)
  run = jit(lambda values: module.apply({'params': params}, Tokens(values, jnp.asarray(mask)), train=False))
  h = run(values)
  np.testing.assert_allclose(h, _extract(params, values, mask), rtol=1e-3, atol=1e-4)
  # What lies beyond a sequence is asked by nobody.
  beyond = run(np.where(mask[..., None], values, np.float32(7)))
  inside = mask.swapaxes(0, 1)
  np.testing.assert_allclose(np.asarray(beyond)[inside], np.asarray(h)[inside], **CLOSE)


def test_tfr_net_predicts_and_rebuilds_from_what_attention_extracts():
  c = _case(TfrNet)
  r, p = c.run(), c.params
  h = _extract(p['extractor'], np.asarray(r.seen.values), np.asarray(r.seen.mask))
  rebuilt = [mlp(p['generators'], h[m], m) for m in range(3)]
  np.testing.assert_allclose(r.rebuilt, np.stack(rebuilt, 1), rtol=1e-3, atol=1e-4)
  gated = GateEncoder(D).apply({'params': p['gate_encoder']}, h, np.asarray(r.seen.mask).swapaxes(0, 1))
  gated = np.asarray(gated).swapaxes(0, 1).reshape(B, -1)
  expected = dense(p['head_out'], gelu(dense(p['head_in'], gated)))
  np.testing.assert_allclose(r.outputs.prediction, expected, rtol=1e-3, atol=1e-4)


def test_tfr_net_gates_tokens_by_their_neighbours():
  _, mask = _tokens()
  mask = mask.swapaxes(0, 1)
  h = np.random.default_rng(2).normal(size=(3, B, 5, 7)).astype(np.float32)
  module = GateEncoder(D)
  p = drawn(module.init, h, mask)
  r = np.asarray(module.apply({'params': p}, h, mask))
  expected = np.zeros((3, B, D), np.float32)
  for i in range(B):
    for m in range(3):
      mine = h[m, i, mask[m, i]]  # only what is there
      u = dense(p['context'], mine, m)
      padded = np.pad(u, ((1, 1), (0, 0)))
      gate = sigmoid(dense(p['gate'], np.concatenate([padded[:-2], u, padded[2:]], -1), m))
      each = np.tanh(dense(p['out'], np.concatenate([mine, gate * np.tanh(u)], -1), m))
      expected[m, i] = each.max(0) if len(each) else 0.0
  assert not mask[1, 1].any()
  np.testing.assert_allclose(r, expected, **CLOSE)


def test_tfr_net_rebuilds_the_tokens_of_removed_slots():
  r = _case(TfrNet).run()
  distance = np.abs(np.asarray(r.rebuilt) - np.asarray(r.truth.values))
  error = np.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean(-1)
  missing = np.asarray(r.truth.mask) & (KEPT == 0)[..., None]
  assert (distance[missing] < 1).any()
  assert (distance[missing] > 1).any()
  expected = 2.5 * sum(error[:, m][missing[:, m]].mean() for m in range(3))
  np.testing.assert_allclose(r.terms['reconstruction'], expected, rtol=1e-4)


def test_tfr_net_predicts_without_what_it_rebuilds():
  parts = reached(_case(TfrNet).run().jacobian)
  assert parts['task'] == {'encoders', 'extractor', 'gate_encoder', 'head_in', 'head_out'}
  assert parts['reconstruction'] == {'encoders', 'extractor', 'generators'}


def test_tfr_net_takes_a_width_that_its_heads_do_not_divide():
  tokens = Tokens(np.ones((2, 2, 3, 10), np.float32), np.ones((2, 2, 3), bool))
  module = Extractor(1, 4, 0.0, 'float32')
  h = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), tokens, train=False)[0])
  assert h.shape == (2, 2, 3, 20)


# MoMKE.


def _expert(p, k, x):
  """What expert k makes of latents [B, D]; branches are halved."""
  for i in range(len(p) // 3):
    a = dense(p[f'value{i}'], x, k)
    x = x + 0.5 * (a + dense(p[f'mlp{i}_out'], gelu(dense(p[f'mlp{i}_in'], a, k)), k))
  return x


def _mixture(c, z, mask):
  """(prediction, unimodal predictions) of latents [B, M, D] by the paper's equations."""
  p, mixed, unimodal = c.params, [], []
  for m in range(3):
    trust = softmax(mlp(p['router'], z[:, m], m))
    made = [_expert(p['experts'], k, z[:, m]) for k in range(3)]
    mixed.append(mask[:, m : m + 1] * sum(trust[:, k : k + 1] * made[k] for k in range(3)))
    unimodal.append(dense(p['heads'], made[m], m))
  joint = np.concatenate(mixed, -1)
  return dense(p['out'], joint + np.maximum(dense(p['joint'], joint), 0)), np.stack(unimodal, 1)


def test_momke_mixes_all_experts_on_every_available_modality():
  c = _case(Momke)
  r = c.run()
  prediction, unimodal = _mixture(c, np.asarray(r.seen), KEPT)
  np.testing.assert_allclose(r.outputs.prediction, prediction, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(r.outputs.unimodal_predictions, unimodal, rtol=1e-4, atol=1e-4)
  label = jnp.asarray(label_of(c.spec))
  np.testing.assert_allclose(r.terms['task'], task_loss(c.spec, jnp.asarray(prediction), label), rtol=1e-4)
  # Untold, it takes all of them as there.
  untold = jit(Momke(c.spec, STILL, oracle=False, depth=2).apply)({'params': c.params}, inputs_of(c.spec))
  prediction, _ = _mixture(c, np.asarray(r.seen), np.ones_like(KEPT))
  np.testing.assert_allclose(untold.prediction, prediction, rtol=1e-4, atol=1e-4)


def test_momke_reads_nothing_of_a_slot_that_it_is_told_is_missing():
  c = _case(Momke)
  changed = inputs_of(c.spec)
  changed['face'] += 5
  before, after = c.run().outputs.prediction, c.run(inputs=changed).outputs.prediction
  assert (np.abs(before - after).max(-1) > 0).tolist() == (KEPT[:, 1] == 1).tolist()


def test_momke_teaches_experts_their_own_modality_where_it_is_intact():
  c = _case(Momke)
  r = c.run()
  assert reached(r.jacobian)['unimodal'] == {'encoders', 'experts', 'heads'}
  # The loss is the sum over modalities of the mean over intact slots.
  logp = np.asarray(jax.nn.log_softmax(r.outputs.unimodal_predictions))
  each = -np.stack([logp[i, :, label] for i, label in enumerate(label_of(c.spec))])
  expected = 0.4 * sum(each[KEPT[:, m] == 1, m].mean() for m in range(3))
  np.testing.assert_allclose(r.terms['unimodal'], expected, rtol=1e-4)
  # With one modality left everywhere only its expert learns, and only its encoder.
  gradient = c.run(kept=np.tile(np.array([0, 0, 1], np.float32), (B, 1))).jacobian['unimodal']
  kernel = np.abs(gradient['experts']['value0']['kernel']).max((1, 2))
  assert (kernel > 0).tolist() == [False, False, True]
  assert {name for name, g in gradient['encoders'].items() if reaches(g)} == {'pose'}


def test_every_expert_learns_from_every_modality():
  c = _case(Momke)
  gradient = c.run(kept=np.tile(np.array([0, 0, 1], np.float32), (B, 1))).jacobian['task']
  kernel = np.abs(gradient['experts']['value0']['kernel']).max((1, 2))
  assert (kernel > 0).all()


def test_experts_start_without_amplifying_latents():
  z = np.random.default_rng(0).normal(size=(64, 3, 32)).astype(np.float32)
  module = Experts(4)
  out, _ = jit(module.init_with_output)(jax.random.key(1), z)
  assert out.shape == (64, 3, 3, 32)
  assert 1.2 < out.std() < 2.5

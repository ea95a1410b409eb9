"""TFN, LMF and MulT with the weights of MMSA's own models answer what those answer.

The golden file is made by `benchmarks/mmsa_fusion.py`. Both compute in float32 and sum in other orders; outputs of size
one to ten agree to a few units of the sixth digit, and 1e-5 of their size is allowed.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import jit

from dream_jax.models.baselines.lmf import LowRankFusion
from dream_jax.models.baselines.mult import CrossmodalFusion, sinusoids
from dream_jax.models.baselines.tfn import TensorFusion
from dream_jax.models.encoders import Tokens

_GOLDEN = Path(__file__).parent / 'golden' / 'mmsa_fusion.npz'
_LETTERS = {'text': 'l', 'audio': 'a', 'vision': 'v'}


@pytest.fixture(scope='module')
def golden():
  """MODEL -> (inputs, weights, output)."""
  with np.load(_GOLDEN) as file:
    arrays = dict(file)

  def of(model):
    def part(kind):
      lead = f'{model}/{kind}/'
      return {name.removeprefix(lead): x for name, x in arrays.items() if name.startswith(lead)}

    return part('inputs'), part('weights'), arrays[f'{model}/output']

  return {model: of(model) for model in ('tfn', 'lmf', 'mult')}


def _close(found, expected):
  assert found.shape == expected.shape
  assert np.abs(expected).max() > 0.5  # Zeros would agree with anything.
  assert np.std(expected, axis=0).min() > 0.05
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def _dense(weights, name):
  return {'kernel': weights[f'{name}.weight'].T, 'bias': weights[f'{name}.bias']}


def test_tfn(golden):
  inputs, weights, output = golden['tfn']
  h = jnp.stack([inputs[name] for name in ('audio', 'vision', 'text')], axis=1)
  params = {ours: _dense(weights, f'post_fusion_layer_{i}') for i, ours in enumerate(('in', 'middle', 'out'), 1)}
  module = TensorFusion(1, hidden=6, dropout=0.5)
  raw = np.asarray(jit(lambda h: module.apply({'params': params}, h, train=False))(h))
  # MMSA stretches a sigmoid to the range of the labels; ours is left linear.
  _close(6 / (1 + np.exp(-raw)) - 3, output)
  assert (np.abs(output) < 2.98).sum() >= 3  # Saturated ones would agree with much.


def test_lmf(golden):
  inputs, weights, output = golden['lmf']
  z = jnp.stack([inputs[name] for name in ('audio', 'vision', 'text')], axis=1)
  factors = np.stack([weights[f'{name}_factor'] for name in ('audio', 'video', 'text')])
  params = {'factors': factors, 'weights': weights['fusion_weights'][0], 'bias': weights['fusion_bias'][0]}
  module = LowRankFusion(3, rank=3)
  _close(np.asarray(jit(lambda z: module.apply({'params': params}, z))(z)), output)


def _transformers(weights, names, layers):
  """Parameters of `Transformers` from as many of MMSA's transformers."""

  def stacked(key, part=slice(None), transpose=False):
    found = [weights[f'{name}.{key}'][part] for name in names]
    return np.stack([x.T if transpose else x for x in found])

  params = {'norm': {'scale': stacked('layer_norm.weight'), 'bias': stacked('layer_norm.bias')}}
  d = weights[f'{names[0]}.layer_norm.weight'].shape[0]
  for i in range(layers):
    lead = f'layers.{i}.'
    for j, ours in enumerate(('query', 'key', 'value')):
      part = slice(j * d, (j + 1) * d)
      kernel = stacked(f'{lead}self_attn.in_proj_weight', part, transpose=True)
      params[f'{ours}{i}'] = {'kernel': kernel, 'bias': stacked(f'{lead}self_attn.in_proj_bias', part)}
    for theirs, ours in (('self_attn.out_proj', 'out'), ('fc1', 'mlp_in'), ('fc2', 'mlp_out')):
      kernel = stacked(f'{lead}{theirs}.weight', transpose=True)
      params[f'{ours}{i}'] = {'kernel': kernel, 'bias': stacked(f'{lead}{theirs}.bias')}
    for j, ours in enumerate(('norm_attention', 'norm_mlp')):
      scale = stacked(f'{lead}layer_norms.{j}.weight')
      params[f'{ours}{i}'] = {'scale': scale, 'bias': stacked(f'{lead}layer_norms.{j}.bias')}
  return params


def _tokens(inputs, length):
  """Sequences of different lengths, padded with what must not be read."""
  values, mask = np.full((3, 3, length, 4), 7.0, np.float32), np.zeros((3, 3, length), bool)
  for m, x in enumerate(inputs.values()):
    values[:, m, : x.shape[1]] = x
    mask[:, m, : x.shape[1]] = True
  return Tokens(jnp.asarray(values), jnp.asarray(mask))


@pytest.mark.parametrize('length', [7, 9])
def test_mult(golden, length):
  inputs, weights, output = golden['mult']
  letters = [_LETTERS[name] for name in inputs]
  pairs = [f'trans_{m}_with_{k}' for m in letters for k in letters if k != m]
  params = {
    'cross': _transformers(weights, pairs, 2),
    'memory': _transformers(weights, [f'trans_{m}_mem' for m in letters], 3),
    'in': _dense(weights, 'proj1'),
    'middle': _dense(weights, 'proj2'),
    'out': _dense(weights, 'out_layer'),
  }
  module = CrossmodalFusion(2, layers=2, memory_layers=3, heads=2, dropout=0.5, head_dropout=0.5, dtype='float32')
  run = jit(lambda tokens: module.apply({'params': params}, tokens, train=False))
  tokens = _tokens(inputs, length)
  _close(np.asarray(run(tokens)), output)
  # It listens to every token: another first one of one modality changes what all make of it.
  other = np.asarray(tokens.values).copy()
  other[0, 0, 0, 1] += 1
  changed = np.asarray(run(tokens.replace(values=jnp.asarray(other))))
  assert np.abs(changed[0] - output[0]).max() > 1e-3
  np.testing.assert_allclose(changed[1:], output[1:], rtol=1e-4, atol=1e-4)


def test_without_any_token_of_a_modality_nothing_is_undefined(golden):
  inputs, _, _ = golden['mult']
  tokens = _tokens(inputs, 7)
  tokens = tokens.replace(mask=tokens.mask.at[:, 1].set(False))
  module = CrossmodalFusion(2, layers=1, memory_layers=1, heads=2, dropout=0.1, head_dropout=0.1, dtype='float32')

  def loss(params, tokens):
    return jnp.square(module.apply({'params': params}, tokens, train=False)).sum()

  params = jit(lambda: module.init(jax.random.key(0), tokens, train=False)['params'])()
  value, grads = jit(jax.value_and_grad(loss))(params, tokens)
  assert np.isfinite(value)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_positions_start_at_one():
  table = sinusoids(3, 6)
  rate = np.array([1.0, 1e-2, 1e-4])
  np.testing.assert_allclose(table[1], np.concatenate([np.sin(2 * rate), np.cos(2 * rate)]), rtol=1e-6)

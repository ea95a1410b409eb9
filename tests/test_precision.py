"""bfloat16 where matrices are multiplied over time or tokens; parameters, gradients, sums and all else in float32."""

import collections
import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest
from baseline_cases import B, drawn, inputs_of, label_of
from small_runs import jit, small_recipe, small_spec

from dream_jax.errors import UserError
from dream_jax.models.dream.dream import DreamSettings
from dream_jax.models.layers import Dropout
from dream_jax.models.model import ORACLE_MASK
from dream_jax.models.registry import METHODS, build, find_method

# One method of each module and its options.
_TRAINED = tuple(
  {(method.module, method.options): name for name, method in METHODS.items() if method.module is not None}.values()
)
# Encoders are those of every method: the transformer is looked at once with latents and once with tokens.
_CASES = [*((name, 'tcn') for name in _TRAINED), ('dream', 'transformer'), ('mult+dropout', 'transformer')]
# Methods with layers of their own over time or tokens, and the plainest; the others only share the encoders.
_OWN_LAYERS = ('dream', 'concat+dropout', 'mult+dropout', 'tfr-net')
# Each of these and each encoder once: to trace a step takes a second.
_QUICK = [('dream', 'tcn'), ('concat+dropout', 'tcn'), ('mult+dropout', 'transformer'), ('tfr-net', 'tcn')]
_EVERY = pytest.mark.parametrize(
  ('name', 'encoder'), [case if case in _QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in _CASES]
)
_KEPT = np.array([[1, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]], np.float32)
_NAMES = small_spec().names
_WIDTH = 8
# Audio is wider than latents, so that it is projected first. Encoders leave nothing of equal size of these and those.
_SHAPES = ((9, 11), (7,), (5, 6, 2), (4,))
_OTHER_SHAPES = ((25, 12), (41,), (12, 13, 3), (6,))


class _Case:
  """A method in one dtype, its parameters drawn, and a batch."""

  def __init__(self, name, encoder, dtype, shapes=_SHAPES, names=_NAMES, typicality=True):
    method, spec = find_method(name), small_spec(names=names)
    shape = dict(zip(_NAMES, shapes, strict=True))
    modalities = tuple(dataclasses.replace(m, shape=shape[m.name]) for m in spec.modalities)
    spec = dataclasses.replace(spec, modalities=modalities)
    sizes = DreamSettings(width=_WIDTH, hidden=6, sequence_encoder=encoder, dtype=dtype, typicality=typicality)
    self.model = build(method, spec, sizes)
    # Among DREAM's inputs of seed 0 one is projected to where the detector cuts off squares: rounding crosses it, and a
    # gradient jumps.
    inputs, kept = inputs_of(spec, seed=2 if name == 'dream' else 0), _KEPT[:, : len(names)]
    if method.uses_oracle:
      inputs[ORACLE_MASK] = kept
    self.batch = {'inputs': inputs, 'clean': inputs_of(spec, seed=3), 'label': label_of(spec), 'kept': kept}
    self.params = drawn(self.model.init, inputs, train=False)

  def outputs(self, params, batch):
    return self.model.apply({'params': params}, batch['inputs'], train=False)

  def gradient(self, params, batch):
    return self.model.gradient(params, batch, jax.random.key(1))


@functools.cache
def _traced(name, encoder, dtype, shapes, typicality):
  """(every equation of a loss and its gradient, those of functions inside it too; shapes of loss and gradients)."""
  case = _Case(name, encoder, dtype, shapes, typicality=typicality)
  jaxpr, result = jax.make_jaxpr(case.gradient, return_shape=True)(case.params, case.batch)
  return tuple(_flat(jaxpr.jaxpr)), result


def _step(name, encoder, dtype, shapes=_SHAPES, typicality=True):
  # Only DREAM has it: what is the same for others is traced once.
  return _traced(name, encoder, dtype, shapes, typicality or name != 'dream')[0]


def _flat(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, (tuple, list)) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from _flat(inner)


def _dtypes(equation):
  return {str(v.aval.dtype) for v in (*equation.invars, *equation.outvars)}


def _products(equations, dtype):
  """The shapes of what is multiplied in a dtype, and how often each.

  A product of two vectors multiplies no matrix: MMPareto compares whole gradients.
  """
  return collections.Counter(
    (*(v.aval.shape for v in e.invars), str(e.params['dimension_numbers']))
    for e in equations
    if e.primitive.name == 'dot_general' and dtype in _dtypes(e) and e.outvars[0].aval.shape
  )


@_EVERY
def test_all_that_leaves_a_model_is_float32(name, encoder):
  case = _Case(name, encoder, 'bfloat16')
  outputs = jax.eval_shape(case.outputs, case.params, case.batch)
  loss, grads = _traced(name, encoder, 'bfloat16', _SHAPES, True)[1]
  assert jax.tree.structure(grads) == jax.tree.structure(case.params)
  for part in (case.params, outputs, loss, grads):
    assert {str(x.dtype) for x in jax.tree.leaves(part)} == {'float32'}


@_EVERY
def test_products_over_time_and_tokens_are_bfloat16_and_no_others(name, encoder):
  """Forwards and backwards."""
  one, other = (_step(name, encoder, 'bfloat16', shapes, False) for shapes in (_SHAPES, _OTHER_SHAPES))
  assert all(len(_dtypes(e)) == 1 for e in one if e.primitive.name == 'dot_general')
  # Longer sequences, larger images and more features make no product in float32 any larger,
  assert _products(one, 'float32') == _products(other, 'float32')
  # and all in bfloat16 but that of the second layer of the vector's encoder.
  same = _products(one, 'bfloat16') & _products(other, 'bfloat16')
  assert {shape for *shapes, _ in same for shape in shapes} == {(B, 2 * _WIDTH), (2 * _WIDTH, _WIDTH), (B, _WIDTH)}
  assert max(math.prod(left) for left, *_ in _products(one, 'bfloat16')) >= B * 5 * 3 * _WIDTH


def test_typicality_is_float32_for_it_looks_at_what_hardly_varies():
  with_it, without = (_step('dream', 'tcn', 'bfloat16', typicality=on) for on in (True, False))
  added = _products(with_it, 'float32') - _products(without, 'float32')
  assert added.total() == sum(m.kind != 'tokens' for m in small_spec().modalities)
  assert _products(with_it, 'bfloat16') == _products(without, 'bfloat16')


@_EVERY
def test_float32_is_float32_throughout(name, encoder):
  whole = _step(name, encoder, 'float32')
  assert not any('bfloat16' in _dtypes(e) for e in whole)
  # And multiplies what bfloat16 does.
  mixed = _step(name, encoder, 'bfloat16')
  assert _products(whole, 'float32') == _products(mixed, 'float32') + _products(mixed, 'bfloat16')


# Sums, and what softmax, norms and likelihoods are made of. A maximum is exact, but its gradient counts those who share
# it. Products are no part of this: XLA accumulates them in float32 (seen on CPU: 8192 ones by 8192 ones make 8192).
_DELICATE = ('reduce_', 'cum', 'scatter', 'exp', 'log', 'rsqrt', 'sqrt', 'erf', 'random', 'lt')


@_EVERY
def test_sums_exponentials_and_draws_are_float32(name, encoder):
  wrong = [
    str(e)
    for e in _step(name, encoder, 'bfloat16')
    if e.primitive.name.startswith(_DELICATE) and 'bfloat16' in _dtypes(e) and not _sums_one(e)
  ]
  assert not wrong


def _sums_one(equation):
  """The way back through a new axis is a sum over one place."""
  shape, axes = equation.invars[0].aval.shape, equation.params.get('axes')
  return axes is not None and all(shape[axis] == 1 for axis in axes)


def test_dropout_keeps_the_share_it_is_told():
  """Drawn in bfloat16, of 128 numbers, none would be dropped."""
  x = jax.numpy.ones((1000, 1000), 'bfloat16')
  y = jit(lambda rate: Dropout(rate).apply({}, x, deterministic=False, rngs={'dropout': jax.random.key(0)}))(0.003)
  assert y.dtype == 'bfloat16'
  assert abs(np.mean(np.asarray(y) == 0) - 0.003) < 5 * (0.003 / x.size) ** 0.5


def _vector(tree):
  return np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree)])


def _cosine(a, b):
  a, b = _vector(a), _vector(b)
  return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize(
  ('name', 'encoder', 'names'),
  [
    ('concat+dropout', 'tcn', _NAMES),
    pytest.param('dream', 'tcn', ('audio', 'pose'), marks=pytest.mark.slow),
    *(
      pytest.param(name, encoder, _NAMES, marks=pytest.mark.slow)
      for name, encoder in _CASES
      if name in _OWN_LAYERS and (name, encoder) != ('concat+dropout', 'tcn')
    ),
  ],
)
def test_loss_and_gradient_are_close_to_those_of_float32(name, encoder, names):
  """A number of bfloat16 is off by at most 2^-9 = 0.002 of its size, and errors of many add up like random steps.

  A cosine falls short of 1 by half the square of the relative error. Measured, at most: losses off by 0.0015 of their
  size, cosines 0.00005 short of 1, those of single encoders 0.0003; with attention over tokens, four transformers deep,
  0.0042, 0.0008 and 0.006. What is allowed is about three times as much. Draws of dropout and of losses are the same.
  """
  deep = name in ('mult+dropout', 'tfr-net')
  loss_error, short, encoder_short = (0.0125, 0.0025, 0.018) if deep else (0.0045, 0.00015, 0.0009)
  exact, rounded = (_Case(name, encoder, dtype, names=names) for dtype in ('float32', 'bfloat16'))
  ((wanted, _), g), ((got, _), h) = (jit(c.gradient)(exact.params, exact.batch) for c in (exact, rounded))
  assert np.isfinite(_vector(h)).all()
  assert wanted != got  # It did round.
  np.testing.assert_allclose(got, wanted, rtol=loss_error)
  assert 1 - _cosine(g, h) < short
  assert max(1 - _cosine(g['encoders'][m], h['encoders'][m]) for m in names) < encoder_short
  np.testing.assert_allclose(np.linalg.norm(_vector(h)), np.linalg.norm(_vector(g)), rtol=0.03)


def test_config_chooses_the_dtype():
  assert small_recipe().model.sizes().dtype == 'float32'
  assert small_recipe(model__dtype='bfloat16').model.sizes().dtype == 'bfloat16'
  with pytest.raises(UserError, match=r"^config\.model\.dtype is 'float16' \(str\); expected one of float32, bfloat16"):
    small_recipe(model__dtype='float16')


@pytest.mark.slow
def test_digits_are_learnt_as_well(command, tmp_path):
  """Measured with two seeds: accuracies under every protocol within 0.005 of each other."""
  arguments = (
    '--config=configs/digits.py:quick',
    '--config.train.epochs=15',
    '--config.train.num_evals=3',
    '--config.controls=()',
  )
  accuracy = {}
  for dtype in ('float32', 'bfloat16'):
    process = command(*arguments, f'--config.model.dtype={dtype}', f'--workdir={tmp_path / dtype}')
    assert process.returncode == 0, process.stderr[-2000:]
    protocols = json.loads((tmp_path / dtype / 'results.json').read_text())['methods']['dream']['protocols']
    accuracy[dtype] = {name: result['summary']['accuracy']['mean'] for name, result in protocols.items()}
  assert accuracy['float32'] != accuracy['bfloat16']
  for protocol, wanted in accuracy['float32'].items():
    np.testing.assert_allclose(accuracy['bfloat16'][protocol], wanted, atol=0.02, err_msg=protocol)

"""Layers for tokens: dense layers with the slots in front, strided neighbours, and averages of neighbouring tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import jit, small_spec

from dream_jax.models.encoders import SequenceEncoder, TokenEncoders, averaged, shifted, windows
from dream_jax.models.layers import Dropout, SlotDense, StackDense, masked_softmax
from dream_jax.models.sizes import Sizes


@pytest.mark.parametrize('axes', [1, 2])
def test_a_stack_is_a_dense_layer_for_each_leading_index(axes):
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  module = StackDense(6, axes=axes)
  params = module.init(jax.random.key(0), x)['params']
  params = {**params, 'bias': np.random.default_rng(1).normal(size=params['bias'].shape).astype(np.float32)}
  y = module.apply({'params': params}, x)
  assert y.shape == (2, 3, 4, 6)
  for lead in np.ndindex(*x.shape[:axes]):
    expected = x[lead] @ np.asarray(params['kernel'][lead]) + params['bias'][lead]
    np.testing.assert_allclose(y[lead], expected, rtol=1e-5, atol=1e-6)
  # Each starts as one layer by itself does.
  kernel = np.asarray(StackDense(200).init(jax.random.key(0), np.zeros((3, 1, 100), np.float32))['params']['kernel'])
  assert np.allclose(kernel.std((1, 2)), 0.1, rtol=0.1)


def test_slots_in_front_and_slots_last_compute_the_same():
  x = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
  params = SlotDense(4).init(jax.random.key(0), x)
  front = StackDense(4).apply(params, x.swapaxes(0, 1))
  np.testing.assert_allclose(front.swapaxes(0, 1), SlotDense(4).apply(params, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('axis', 'stride'), [(1, 1), (1, 2), (2, 2), (2, 3)])
def test_neighbours_of_every_place_that_is_kept(axis, stride):
  x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
  got = np.asarray(shifted(jnp.asarray(x), axis, stride))
  padded = np.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)])
  size = x.shape[axis]
  whole = np.concatenate([np.take(padded, range(i, i + size), axis) for i in range(3)], axis=-1)
  np.testing.assert_array_equal(got, np.take(whole, range(0, size, stride), axis))


@pytest.mark.parametrize('size', range(1, 9))
def test_windows_are_every_third_frame_with_its_neighbours(size):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, 3)).astype(np.float32))
  np.testing.assert_array_equal(windows(x), shifted(x, 1)[:, ::3])


@pytest.mark.parametrize('most', [1, 2, 3, 5, 9])
def test_averages_are_over_the_neighbours_that_are_there(most):
  rng = np.random.default_rng(0)
  z, mask = rng.normal(size=(4, 5, 2)).astype(np.float32), rng.random((4, 5)) < 0.6
  mask[0] = False
  values, there = averaged(jnp.asarray(z), jnp.asarray(mask), most)
  group = -(-5 // most)
  assert values.shape[1] == -(-5 // group) <= most
  for b in range(4):
    for i in range(values.shape[1]):
      part = slice(i * group, (i + 1) * group)
      inside = z[b, part][mask[b, part]]
      assert there[b, i] == (len(inside) > 0)
      np.testing.assert_allclose(values[b, i], inside.mean(0) if len(inside) else 0.0, rtol=1e-5, atol=1e-6)


def test_the_limit_reaches_the_encoders():
  spec = small_spec()
  inputs = {m.name: np.ones((2, *m.shape), np.int32 if m.kind == 'tokens' else np.float32) for m in spec.modalities}
  inputs |= {m.length_name: np.full(2, m.shape[0], np.int32) for m in spec.modalities if m.has_length}

  def tokens(most):
    module = TokenEncoders(spec, Sizes(width=8, max_tokens=most))
    return jit(lambda: module.init_with_output(jax.random.key(0), inputs, train=False)[0])()

  free, one = tokens(0), tokens(1)
  assert one.values.shape[2] == 1 < free.values.shape[2]
  # The mean of all tokens that are there, whatever they were grouped into.
  np.testing.assert_allclose(one.values[:, :, 0], free.mean(), rtol=1e-5, atol=1e-5)


def test_who_may_attend_to_nothing_hears_nothing():
  weight = masked_softmax(jnp.zeros((2, 3)), jnp.asarray([[False, False, False], [True, False, True]]))
  np.testing.assert_allclose(weight, [[0, 0, 0], [0.5, 0, 0.5]])


def test_dropout_keeps_the_mean():
  x = np.ones((8, 64), np.float32)
  kept = Dropout(0.25).apply({}, x, deterministic=False, rngs={'dropout': jax.random.key(0)})
  np.testing.assert_allclose(np.unique(kept), [0, 4 / 3], rtol=1e-6)


def test_a_sequence_is_the_same_however_far_it_is_padded():
  rng = np.random.default_rng(0)
  encoder, length = SequenceEncoder(4), np.array([3, 7, 1], np.int32)
  short, long = (rng.normal(size=(3, t, 5)).astype(np.float32) for t in (7, 15))
  long[:, :7] = short
  params = encoder.init(jax.random.key(0), short, length)
  params = jax.tree.map(lambda p: p + rng.normal(scale=0.5, size=p.shape).astype(p.dtype), params)
  run = jit(encoder.apply)
  np.testing.assert_allclose(run(params, short, length), run(params, long, length), rtol=1e-5, atol=1e-6)

"""Parts of DREAM by themselves: what a reconstruction reads, and what the odds of a slot follow."""

import jax
import jax.numpy as jnp
import numpy as np
from small_runs import jit, small_spec

from dream_jax.models.dream.dream import Dream, DreamSettings
from dream_jax.models.dream.recognition import RawDetector
from dream_jax.models.dream.reconstruction import Reconstructor
from dream_jax.models.model import overlay
from dream_jax.spec import DatasetSpec, ModalitySpec


def test_a_latent_is_reconstructed_from_the_others_alone():
  z = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
  contributions = np.full((5, 3), 0.5, np.float32)
  part = Reconstructor(hidden=4)
  params = part.init(jax.random.key(0), z, contributions)
  run = jit(lambda z: part.apply(params, z, contributions)[0])
  other = z.copy()
  other[:, 1] += 1
  before, after = run(z), run(other)
  np.testing.assert_array_equal(before[:, 1], after[:, 1])
  assert not np.isclose(before[:, [0, 2]], after[:, [0, 2]]).any()


def test_the_odds_of_a_slot_follow_what_its_features_say():
  spec = small_spec(names=('face', 'pose'))
  rng = np.random.default_rng(0)
  inputs = {m.name: rng.normal(size=(5, *m.shape)).astype(np.float32) for m in spec.modalities}
  part = RawDetector(spec, np.float32, typicality=False)
  params = part.init(jax.random.key(0), inputs)['params']
  run = jit(lambda bias: part.apply({'params': {**params, 'face_odds': {**params['face_odds'], 'bias': bias}}}, inputs))
  low, high = run(np.float32([-1.0])), run(np.float32([1.0]))
  assert (low[:, 0] < high[:, 0]).all()
  np.testing.assert_array_equal(low[:, 1], high[:, 1])


def test_presence_of_a_slot_that_is_plainly_empty_is_zero():
  """However normal raw zeros are in training; one number, and what is not all zeros, may be content."""
  kinds = (
    ('scan', 'vector', (3,)),
    ('level', 'vector', (1,)),
    ('steps', 'sequence', (6, 2)),
    ('words', 'tokens', (4,), 9),
  )
  spec = DatasetSpec('made', tuple(ModalitySpec(*kind) for kind in kinds), 'multiclass', 2, 'synthetic')
  rng = np.random.default_rng(0)
  zero = {'scan': np.float32([1, 2, 3]), 'level': np.float32([0]), 'steps': np.float32([4, 5])}
  train = {'scan': rng.normal(size=(40, 3)), 'level': rng.normal(size=(40, 1)), 'steps': rng.normal(size=(40, 6, 2))}
  train = {name: x.astype(np.float32) for name, x in train.items()} | {'steps_length': np.full(40, 6, np.int32)}
  inputs = {name: jnp.asarray(x[:2]) for name, x in train.items()}
  inputs['words'], inputs['words_length'] = jnp.full((2, 4), spec.modalities[3].unk_id), jnp.array([4, 4])
  for name, value in zero.items():
    inputs[name] = inputs[name].at[0].set(jnp.broadcast_to(value, inputs[name].shape[1:]))
  inputs['words'] = inputs['words'].at[1, 2].set(5)
  inputs['scan'] = inputs['scan'].at[1].set(zero['scan']).at[1, 1].set(0.0)
  model = Dream(spec, DreamSettings(width=4, hidden=4))
  params = model.init(jax.random.key(0), inputs)['params']
  params = overlay(params, model.fitted(train, zero), lambda new, _: jnp.asarray(new))
  presence = np.asarray(model.apply({'params': params}, inputs).presence)
  np.testing.assert_array_equal(presence == 0, [[True, False, True, True], [False] * 4])

"""Parts of DREAM by themselves: what a reconstruction reads, and what the odds of a slot follow."""

import jax
import numpy as np
from small_runs import jit, small_spec

from dream_jax.models.dream.recognition import RawDetector
from dream_jax.models.dream.reconstruction import Reconstructor


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

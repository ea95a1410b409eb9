"""Frames: gaps are interpolated, what is left speaks for the slot, and odds are learned from what training removed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import jit, small_prepared, small_recipe

from dream_jax.data.pipeline import flat_batch, training_arrays
from dream_jax.evaluation.metrics import auroc
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import Missing
from dream_jax.models.dream import frames
from dream_jax.models.registry import build, find_method
from dream_jax.spec import DatasetSpec, ModalitySpec

_TIME = 20
_WAVES = DatasetSpec(
  'waves',
  (ModalitySpec('wave', 'sequence', (_TIME, 3)), ModalitySpec('words', 'tokens', (6,), 40)),
  'multiclass',
  3,
  'synthetic',
)


def _interpolated(x, trust, length=None):
  x, trust = jnp.asarray(x, jnp.float32)[None, :, None], jnp.asarray(trust, jnp.float32)[None]
  inside = jnp.arange(x.shape[1])[None] < (x.shape[1] if length is None else length)
  return np.asarray(frames.interpolated(x, trust, inside))[0, :, 0]


def test_gaps_are_linear_between_the_nearest_trusted_frames():
  found = _interpolated([0, 2, 99, -99, 99, 10, 12, 14], [1, 1, 0, 0, 0, 1, 1, 1])
  np.testing.assert_allclose(found[2:5], [4, 6, 8], atol=1e-5)
  # A frame is not asked about itself.
  np.testing.assert_allclose(found[[1, 6]], [0.5 * (0 + 10) + (10 - 0) * (1 / 5 - 0.5), 12], atol=1e-5)


def test_the_nearest_frame_is_carried_where_there_is_one_side_only():
  found = _interpolated([7, 99, 99, 99, 50, 50], [1, 0, 0, 0, 1, 1], length=4)
  np.testing.assert_allclose(found[1:4], 7, atol=0.4)  # The mean stands very far away, not nowhere.
  assert _interpolated([99, 99, 99], [0, 0, 0]).tolist() == [0, 0, 0]


def test_trust_is_soft():
  # Half of 20 and half of 30 stand after it, 1.5 frames away.
  assert _interpolated([0, 10, 99, 20, 30], [0, 1, 0, 0.5, 1])[2] == pytest.approx((1.5 * 10 + 1 * 25) / 2.5, abs=1e-4)
  gradient = jax.grad(lambda x: frames.interpolated(x, jnp.full((1, 3), 0.5), jnp.ones((1, 3), bool)).sum())
  assert not np.asarray(gradient(jnp.ones((1, 3, 2)))).any()


def test_windows_count_by_their_least_trusted_frame_and_alike_where_nothing_is():
  inside = jnp.arange(12)[None] < jnp.asarray([[12], [12], [7]])
  trust = np.full((3, 12), 0.999, np.float32)
  trust[0, 4] = 1e-6
  trust[1] = 1e-3
  weight = np.asarray(frames.window_weight(jnp.log(jnp.asarray(trust)), inside))
  np.testing.assert_allclose(weight[0], [4 / 3, 0, 4 / 3, 4 / 3], atol=0.02)  # Frames 2 to 4 are the second window.
  np.testing.assert_allclose(weight[1], 1.0, rtol=0.01 + weight[1].std() * 3)
  np.testing.assert_allclose(weight[2], [1, 1, 1, 0], atol=0.01)


def _waves(n, seed):
  """Slow waves of any phase; tokens are even numbers."""
  rng = np.random.default_rng(seed)
  phase, speed = rng.uniform(0, 2 * np.pi, (n, 1, 3)), rng.uniform(0.05, 0.25, (n, 1, 3))
  wave = np.sqrt(2) * np.sin(phase + speed * np.arange(_TIME)[None, :, None])
  return {
    'wave': wave.astype(np.float32),
    'wave_length': rng.integers(_TIME // 2, _TIME + 1, n).astype(np.int32),
    'words': 2 * rng.integers(1, 20, (n, 6)).astype(np.int32),
    'words_length': np.full(n, 6, np.int32),
  }


def _damaged(inputs, seed, rate=0.4):
  """Noise where frames went, odd numbers where tokens did; (inputs, name -> bool [n, T])."""
  rng = np.random.default_rng(seed)
  kept = {name: rng.random(inputs[name].shape[:2]) >= rate for name in ('wave', 'words')}
  noise = rng.normal(size=inputs['wave'].shape).astype(np.float32)
  odd = 2 * rng.integers(1, 20, inputs['words'].shape).astype(np.int32) + 1
  wave = np.where(kept['wave'][..., None], inputs['wave'], noise)
  return {**inputs, 'wave': wave, 'words': np.where(kept['words'], inputs['words'], odd)}, kept


@pytest.fixture(scope='module')
def learned():
  """The judgements of new samples after some steps of `frame_loss`: (clean, damaged, kept, judged)."""
  model = frames.FrameRecogniser(_WAVES, 'float32')
  train, kept = _damaged(_waves(128, 0), 1)
  params = model.init(jax.random.key(0), train)['params']
  optimizer = optax.adam(0.02)

  def step(carry, _):
    params, state = carry
    slots = jnp.ones((128, 2), bool)
    gradient = jax.grad(lambda p: frames.frame_loss(_WAVES, model.apply({'params': p}, train), train, slots, kept))(
      params
    )
    change, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, change), state), None

  with jax.numpy_dtype_promotion('standard'):
    (params, _), _ = jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, length=120))(params)
  clean = _waves(128, 2)
  damaged, kept = _damaged(clean, 3)
  return clean, damaged, kept, model.apply({'params': params}, damaged)


def test_noise_and_foreign_tokens_are_told_frame_by_frame(learned):
  _, damaged, kept, judged = learned
  for name, least in (('wave', 0.9), ('words', 0.99)):
    inside = np.arange(kept[name].shape[1]) < damaged[f'{name}_length'][:, None]
    first, second = (auroc(np.asarray(odds)[inside], kept[name][inside]) for odds in judged.odds[name])
    assert second > least
    assert name == 'words' or second > first + 0.05  # The second look is worth its while.


def test_what_encoders_read_is_close_to_what_was_removed(learned):
  clean, damaged, kept, judged = learned
  inside = np.arange(_TIME) < damaged['wave_length'][:, None]
  gone = ~kept['wave'] & inside

  def error(x):
    return np.square(np.asarray(x)[..., :3] - clean['wave'])[gone].mean()

  assert error(judged.inputs['wave']) < 0.25 * error(damaged['wave'])
  assert not np.asarray(judged.inputs['wave'])[~inside].any()
  found = np.asarray(judged.inputs['words'])
  assert (found[kept['words']] == damaged['words'][kept['words']]).mean() > 0.95
  assert (found[~kept['words']] == _WAVES.modalities[1].unk_id).mean() > 0.95


def test_what_is_left_is_the_share_that_was_kept(learned):
  _, damaged, kept, judged = learned
  found = np.asarray(frames.left(_WAVES, damaged, judged))
  inside = np.arange(_TIME) < damaged['wave_length'][:, None]
  truth = np.where(inside, kept['wave'], 0).sum(1) / inside.sum(1)
  assert np.corrcoef(found[:, 0], truth)[0, 1] > 0.7
  np.testing.assert_allclose(found[:, 1], kept['words'].mean(1), atol=0.1)


@pytest.fixture(scope='module')
def batch():
  """A batch of which sequences lost parts, with the model, first parameters and terms of the loss."""
  prepared = small_prepared('multiclass', names=('audio', 'pose'), train=16, validation=4, test=4)
  model = build(find_method('dream'), prepared.spec, small_recipe(model__reconstruct='never', model__frames=True).model)
  inject = Missing('modality', 0.6, parts=('frames', 'block'), fills=('noise',))
  data = training_arrays(prepared, inject, (0,), None)
  batch = flat_batch(prepared.spec, inject, data, np.arange(1), np.arange(16), 16, True, NUMPY)
  params = jit(lambda key: model.init({'params': key}, batch['inputs'], train=False)['params'])(jax.random.key(0))
  return batch, jit(lambda batch: model.loss(params, batch, jax.random.key(2))[1])


def test_batches_say_which_frames_were_kept(batch):
  batch, _ = batch
  for name, kept in batch['kept_frames'].items():
    inside = np.arange(kept.shape[1]) < batch['inputs'][f'{name}_length'][:, None]
    share = batch['kept'][:, ['audio', 'pose'].index(name)]
    np.testing.assert_allclose((kept & inside).sum(1) / inside.sum(1), share, atol=1e-6)
    assert ((share > 0) & (share < 1)).any()
    same = batch['inputs'][name] == batch['clean'][name]
    np.testing.assert_array_equal((same if same.ndim == 2 else same.all(-1))[kept & inside], True)


def test_only_the_frame_loss_reads_which_frames_were_kept(batch):
  batch, terms = batch
  before = terms(batch)
  after = terms({**batch, 'kept_frames': jax.tree.map(jnp.logical_not, batch['kept_frames'])})
  assert {name for name in before if before[name] != after[name]} == {'frames'}


def test_a_sequence_that_kept_anything_is_evidence(batch):
  batch, terms = batch
  partly = (batch['kept'] > 0) & (batch['kept'] < 1)
  assert partly.any()
  before, after = terms(batch), terms({**batch, 'kept': np.where(partly, np.float32(0.01), batch['kept'])})
  assert all(before[name] == after[name] for name in before)
  gone = terms({**batch, 'kept': np.where(partly, np.float32(0), batch['kept'])})
  assert gone['unimodal'] != before['unimodal']

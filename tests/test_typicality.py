"""What recognition knows before training: content from damage, by second moments of the training features alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_prepared

from dream_jax.evaluation.metrics import auroc
from dream_jax.models.dream.dream import Dream
from dream_jax.models.dream.typicality import Typicality, fit_typicality, statistics
from dream_jax.models.sizes import Sizes
from dream_jax.spec import DatasetSpec, ModalitySpec

_WIDTH = 40


def _spec(**kinds):
  modalities = [ModalitySpec(name, kind, shape) for name, (kind, shape) in kinds.items()]
  modalities = (*modalities, ModalitySpec('words', 'tokens', (4,), 9))  # Which are left alone.
  return DatasetSpec('made', modalities, 'multiclass', 3, 'synthetic')


def _vectors(n, seed, width=_WIDTH, share=0.9):
  """Standardised features of which a share of the variance lies in a fifth of the directions."""
  rng = np.random.default_rng(seed)
  mixing = np.random.default_rng(0).normal(size=(width // 5, width))
  mixing /= np.linalg.norm(mixing, axis=0)
  x = rng.normal(size=(n, width // 5)) @ mixing
  return (np.sqrt(share) * x + np.sqrt(1 - share) * rng.normal(size=(n, width))).astype(np.float32)


def _sequences(n, seed, time=20, width=6):
  """Slow walks: no frame is remarkable, but its neighbours are like it."""
  rng = np.random.default_rng(seed)
  steps = np.cumsum(rng.normal(size=(n, time, width)), axis=1) / np.sqrt(np.arange(1, time + 1))[:, None]
  return steps.astype(np.float32), rng.integers(3, time + 1, n).astype(np.int32)


def _odds(modality, fit, x, length=None):
  return np.asarray(Typicality(modality).apply({'params': fit}, jnp.asarray(x), length))


def _told(odds_real, odds_damaged):
  return auroc(np.r_[odds_real, odds_damaged], np.r_[np.ones(len(odds_real)), np.zeros(len(odds_damaged))])


@pytest.fixture(scope='module')
def vector():
  """(modality, parameters, training features): few samples, raw zero far from the mean in half of the features."""
  spec = _spec(text=('vector', (_WIDTH,)))
  train, zero = _vectors(120, 1), np.where(np.arange(_WIDTH) % 2, 2.0, 0.0).astype(np.float32)
  return spec.modalities[0], fit_typicality(spec, {'text': train}, {'text': zero})['text'], train, zero


def test_noise_of_the_same_scale_is_told_from_content_never_seen(vector):
  modality, fit, _, _ = vector
  real, noise = _vectors(300, 2), np.random.default_rng(3).normal(size=(300, _WIDTH)).astype(np.float32)
  assert _told(_odds(modality, fit, real), _odds(modality, fit, noise)) > 0.99
  # Nothing of that is in the magnitudes.
  assert 0.4 < _told(-np.square(real).mean(1), -np.square(noise).mean(1)) < 0.65


def test_few_samples_are_enough_where_most_values_lie_near_their_median():
  """Counts of words: no second moment can be known of 200 features from 30 samples."""
  rng = np.random.default_rng(1)
  counts = rng.poisson(rng.gamma(0.1, 1.0, 200), (330, 200)).astype(np.float32)
  mean, std = counts[:30].mean(0), np.maximum(counts[:30].std(0), 0.2)
  x, spec = (counts - mean) / std, _spec(text=('vector', (200,)))
  fit = fit_typicality(spec, {'text': x[:30]}, {'text': -mean / std})['text']
  odds = _odds(spec.modalities[0], fit, x[30:])
  noise = _odds(spec.modalities[0], fit, rng.normal(size=(300, 200)).astype(np.float32))
  assert (odds > 3).mean() > 0.99
  assert (noise < -3).mean() > 0.99


def test_zeros_and_the_mean_are_damage_wherever_they_lie(vector):
  modality, fit, _, zero = vector
  odds = _odds(modality, fit, np.stack([zero, np.zeros(_WIDTH, np.float32)]))
  assert (odds < -3).all()
  assert np.median(_odds(modality, fit, _vectors(300, 2))) > 3


def test_a_raw_zero_that_has_the_energy_of_content_is_known_by_its_place(vector):
  modality, fit, train, _ = vector

  def energy(x):
    return np.asarray(statistics(modality, jnp.asarray(x), None, fit['probes'], fit['blank']))[:, 0]

  place = _vectors(1, 9)
  place *= np.exp(0.5 * (energy(train).mean() - energy(place)))[:, None]
  assert abs(energy(place)[0] - energy(train).mean()) < 0.05
  fit = fit_typicality(_spec(text=('vector', (_WIDTH,))), {'text': train}, {'text': place[0]})['text']
  assert _odds(modality, fit, place)[0] < -3
  assert np.median(_odds(modality, fit, _vectors(300, 2))) > 3


def test_training_samples_look_no_more_typical_than_new_ones(vector):
  modality, fit, train, _ = vector

  def energy(x):
    return np.asarray(statistics(modality, jnp.asarray(x), None, fit['probes'], fit['blank']))[:, 0]

  gap = energy(_vectors(400, 2)).mean() - energy(train).mean()
  assert abs(gap) < 0.15
  # One estimate from all training samples would flatter them.
  alone = np.square(np.einsum('nd,hdr->nhr', train, fit['probes'])).mean(-1)
  assert np.log(alone.max(1)).mean() - np.log(alone.min(1)).mean() > 0.3


def test_noise_in_a_sequence_is_told_by_its_neighbours_and_padding_is_not_read():
  spec = _spec(audio=('sequence', (20, 6)))
  modality = spec.modalities[0]
  x, length = _sequences(200, 1)
  fit = fit_typicality(spec, {'audio': x, 'audio_length': length}, {'audio': np.full(6, 5.0)})['audio']
  real, length = _sequences(200, 2)
  noise = np.random.default_rng(3).normal(size=real.shape).astype(np.float32)
  odds = _odds(modality, fit, real, length)
  assert _told(odds, _odds(modality, fit, noise, length)) > 0.97
  blank = np.full_like(real, 5.0)
  assert _told(odds, _odds(modality, fit, blank, length)) > 0.99
  beyond = np.where(np.arange(20)[None, :, None] < length[:, None, None], real, 100.0).astype(np.float32)
  np.testing.assert_array_equal(odds, _odds(modality, fit, beyond, length))


def test_slots_that_were_empty_before_training_are_no_content():
  spec, zero = _spec(text=('vector', (100,))), np.linspace(-1, 1, 100, dtype=np.float32)
  train, real = (_vectors(300, seed, 100, share=0.7) for seed in (1, 2))
  train[::2] = zero
  fit = fit_typicality(spec, {'text': train}, {'text': zero})['text']
  odds = _odds(spec.modalities[0], fit, real)
  assert np.median(odds) > 3
  assert _told(odds, _odds(spec.modalities[0], fit, np.random.default_rng(3).normal(size=real.shape))) > 0.96
  assert _odds(spec.modalities[0], fit, zero[None])[0] < -3


def test_sequences_that_were_empty_before_training_are_no_content():
  spec, zero = _spec(audio=('sequence', (20, 6))), np.full(6, 5.0, np.float32)
  (train, length), (real, new_length) = _sequences(300, 1), _sequences(300, 2)
  train[::2] = zero
  train[np.arange(20)[None, :] >= length[:, None]] = 0.0  # Beyond the length there is nothing, not even raw zero.
  train[1, 0] = zero  # One frame of a sample that holds more.
  fit = fit_typicality(spec, {'audio': train, 'audio_length': length}, {'audio': zero})['audio']
  odds = _odds(spec.modalities[0], fit, real, new_length)
  assert (odds < 0).mean() < 0.1
  assert (_odds(spec.modalities[0], fit, np.broadcast_to(zero, real.shape), new_length) < -3).all()


def test_a_modality_that_hardly_ever_holds_anything_is_not_fitted():
  spec = _spec(text=('vector', (_WIDTH,)), pose=('vector', (_WIDTH,)))
  zero = np.zeros(_WIDTH, np.float32)
  features = {'text': _vectors(100, 1), 'pose': np.concatenate([_vectors(15, 2), np.tile(zero, (85, 1))])}
  assert fit_typicality(spec, features, {'text': zero, 'pose': zero}).keys() == {'text'}


def test_a_rare_modality_of_many_samples_is_fitted():
  spec, zero = _spec(text=('vector', (_WIDTH,))), np.zeros(_WIDTH, np.float32)
  train = np.tile(zero, (50_000, 1))
  train[::500] = _vectors(100, 1)
  fit = fit_typicality(spec, {'text': train}, {'text': zero})['text']
  odds, noise = _odds(spec.modalities[0], fit, _vectors(300, 2)), np.random.default_rng(3).normal(size=(300, _WIDTH))
  assert np.median(odds) > 3
  assert _told(odds, _odds(spec.modalities[0], fit, noise)) > 0.99


def test_a_single_number_may_be_zero():
  spec, x = _spec(level=('vector', (1,))), np.random.default_rng(1).normal(size=(200, 1)).astype(np.float32)
  x[::2] = 0.0
  fit = fit_typicality(spec, {'level': x}, {'level': np.zeros(1, np.float32)})['level']
  found = statistics(spec.modalities[0], jnp.asarray(x), None, fit['probes'], fit['blank'], fit['median'])
  np.testing.assert_allclose(fit['classes'][0, 0], np.asarray(found).mean(0), rtol=1e-4)


def test_an_image_is_empty_where_every_channel_is_raw_zero():
  spec, zero = _spec(face=('image', (8, 8, 3))), np.array([-1.0, 0.0, 2.0], np.float32)
  train, real = (_vectors(300, seed, 192).reshape(-1, 8, 8, 3) for seed in (1, 2))
  fit = fit_typicality(spec, {'face': train}, {'face': zero})['face']
  half = np.concatenate([train, np.broadcast_to(zero, train.shape)])
  again = fit_typicality(spec, {'face': half}, {'face': zero})['face']
  for this in (fit, again):
    assert np.median(_odds(spec.modalities[0], this, real)) > 3
  np.testing.assert_allclose(again['classes'][0], fit['classes'][0], atol=0.1)


def test_more_features_than_a_covariance_should_have():
  spec = _spec(face=('image', (16, 16, 3)))
  modality = spec.modalities[0]
  train, real = (_vectors(600, seed, 768).reshape(-1, 16, 16, 3) for seed in (1, 2))
  fit = fit_typicality(spec, {'face': train}, {'face': np.zeros(3)})['face']
  assert fit['probes'].shape == (2, 768, 32)
  noise = np.random.default_rng(3).normal(size=real.shape).astype(np.float32)
  assert _told(_odds(modality, fit, real), _odds(modality, fit, noise)) > 0.95


def test_before_it_is_fitted_it_says_nothing():
  modality = _spec(text=('vector', (_WIDTH,))).modalities[0]
  x = jnp.asarray(_vectors(5, 1))
  params = Typicality(modality).init(jax.random.key(0), x, None)['params']
  np.testing.assert_array_equal(_odds(modality, params, x), np.zeros(5))


def test_the_same_data_give_the_same_parameters_and_tokens_have_none():
  prepared = small_prepared('multiclass')
  features = prepared.splits['train'].features
  fits = [Dream(prepared.spec).fitted(features, prepared.zero) for _ in range(2)]
  jax.tree.map(np.testing.assert_array_equal, *fits)
  known = fits[0]['recogniser']['detector']
  expected = {f'{m.name}_typicality' for m in prepared.spec.modalities if m.kind != 'tokens'}
  assert known.keys() == expected
  assert len(expected) < prepared.spec.num_modalities
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(known))


def test_without_recognition_or_typicality_nothing_is_fitted():
  prepared = small_prepared('multiclass')
  for off in ({'recognise': False}, {'typicality': False}):
    settings = type(Dream(prepared.spec).sizes)(**off)
    assert isinstance(settings, Sizes)
    assert Dream(prepared.spec, settings).fitted(prepared.splits['train'].features, prepared.zero) == {}

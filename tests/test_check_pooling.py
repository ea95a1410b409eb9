"""How the check pools a modality into one vector a sample."""

import numpy as np
import small_data
from planted_data import make, modality

from dream_jax.data.datasets import Split, sample_keys
from dream_jax.datacheck import check, pooling
from dream_jax.datacheck.description import WIDTH
from dream_jax.spec import ModalitySpec


def test_pooled_sequences_by_hand():
  dataset = make(sizes={'train': 40, 'validation': 30, 'test': 2})
  train = dataset.splits['train']
  train.features['noise'][4] = 0  # Missing.
  train.features['noise'][train.features['noise_length'] == 3, 1] = 0  # A gap.
  train.features['noise'][:, 3] = 100  # Beyond every length.
  rows = []
  for x, length in zip(train.features['noise'], train.features['noise_length'], strict=True):
    inside = x[:length]
    seen = inside[inside.any(1)]
    if not len(seen):
      rows.append(np.zeros(21))
      continue
    parts = [seen.mean(0), seen.std(0), seen.max(0)]
    for k in range(4):
      part = inside[length * k // 4 : length * (k + 1) // 4]
      part = part[part.any(1)]
      parts.append(part.mean(0) if len(part) else seen.mean(0))
    order = [parts[0], *parts[3:], *parts[1:3]]
    rows.append(np.concatenate(order))
  np.testing.assert_allclose(pooling._pool_sequence(dataset.spec.modalities[1], train), rows, atol=1e-5)


def test_pooled_images_by_hand():
  spec = ModalitySpec('face', 'image', (40, 7, 2))
  images = np.random.default_rng(0).random((3, 40, 7, 2)).astype(np.float32)
  split = Split(np.array(list('abc')), sample_keys('abc'), {'face': images}, np.zeros(3), {})
  got = pooling._pool_image(spec, split).reshape(3, 16, 7, 2)
  for k in range(16):
    expected = images[:, k * 40 // 16 : (k + 1) * 40 // 16].mean(1)
    np.testing.assert_allclose(got[:, k], expected, rtol=1e-5)


def test_pooled_tokens_are_counts_of_what_training_has():
  dataset = small_data.small_dataset(30, 12, 3)
  text = dataset.spec.modalities[1]
  train, validation = dataset.splits['train'], dataset.splits['validation']
  for split in (train, validation):
    split.features['text'][:], split.features['text_length'][:] = (2, 3, 1, 0, 0, 0), 3
  train.features['text'][:10, :3] = (2, 2, 5)
  train.features['text'][29, 1] = 7  # Once in training: left out.
  validation.features['text'][0, :3] = (9, 7, 1)  # Nothing that training knows well.
  bags, new = pooling._bags_of_words(text, train, validation)
  assert bags.shape == (30, 3)
  weights = np.log(31 / (1 + np.array([30, 19, 10]))) + 1  # Ids 2, 3 and 5.
  first = np.array([(1 + np.log(2)) * weights[0], 0, weights[2]])
  np.testing.assert_allclose(bags[0], first / np.linalg.norm(first), rtol=1e-5)
  assert not new[0].any()
  np.testing.assert_allclose(new[1], bags[20], rtol=1e-6)


def test_fewer_samples_than_features_lose_nothing():
  rng = np.random.default_rng(0)
  x, new = rng.normal(size=(50, 400)).astype(np.float32), rng.normal(size=(20, 400)).astype(np.float32)
  small, small_new = pooling.reduced(x, new, 100)
  assert small.shape == (50, 50)
  np.testing.assert_allclose(small @ small.T, x @ x.T, rtol=1e-3, atol=1e-2)
  np.testing.assert_allclose(small_new @ small.T, new @ x.T, rtol=1e-3, atol=1e-2)


def test_reduction_keeps_the_directions_that_vary_most():
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(300, 10)) @ rng.normal(size=(10, 200)) * 5 + rng.normal(size=(300, 200))).astype(np.float32)
  small, _ = pooling.reduced(x, x[:1], 12)
  assert small.shape == (300, 12)
  assert (small**2).sum() > 0.98 * (np.linalg.svd(x)[1][:12] ** 2).sum()


def test_samples_without_the_modality_pool_to_zeros():
  dataset = make()
  for name in ('train', 'validation'):
    dataset.splits[name].features['told'][:20] = 0
  dataset.splits['train'].features['told'][20:, 1] += 1000
  train, validation = pooling.pooled(dataset.spec.modalities[0], dataset.splits['train'], dataset.splits['validation'])
  assert not train[:20].any()
  assert not validation[:20].any()
  np.testing.assert_allclose(train[20:].mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(train[20:].std(0), 1, atol=1e-3)


def test_every_kind_goes_through():
  findings = check.inspect(small_data.small_dataset())
  assert set(findings.probes.modalities) == {'audio', 'text', 'face', 'pose'}
  assert modality(findings, 'face').empty == {'train': 0, 'validation': 0, 'test': 0}
  assert max(map(len, check.describe(findings).splitlines())) <= WIDTH

"""A small data set built by hand with one modality of every kind, for the tests of the data package."""

import numpy as np

from dream_jax.data.datasets import Dataset, Split, sample_keys
from dream_jax.spec import DatasetSpec, ModalitySpec

SPEC = DatasetSpec(
  name='small',
  modalities=(
    ModalitySpec('audio', 'sequence', (7, 5)),
    ModalitySpec('text', 'tokens', (6,), vocab_size=50),
    ModalitySpec('face', 'image', (2, 3, 2)),
    ModalitySpec('pose', 'vector', (4,)),
  ),
  task='multiclass',
  num_outputs=3,
  data_kind='synthetic',
)


def small_split(n: int, prefix: str, spec: DatasetSpec = SPEC) -> Split:
  """n samples whose values are far from zero and all different."""
  rng = np.random.default_rng(sum(map(ord, prefix)) + n)
  ids = np.array([f'{prefix}{i}' for i in range(n)])
  features = {}
  for modality in spec.modalities:
    if modality.kind == 'tokens':
      x = rng.integers(2, modality.vocab_size, (n, *modality.shape)).astype(np.int32)
    else:
      x = rng.normal(3.0, 2.0, (n, *modality.shape)).astype(np.float32)
    if modality.has_length:
      length = rng.integers(2, modality.shape[0] + 1, n).astype(np.int32)
      x[np.arange(modality.shape[0]) >= length[:, None]] = 0
      features[modality.length_name] = length
    features[modality.name] = x
  return Split(ids, sample_keys(ids), features, rng.integers(0, 3, n).astype(np.int32), {})


def small_dataset(train: int = 40, validation: int = 11, test: int = 23, spec: DatasetSpec = SPEC) -> Dataset:
  """Three such splits."""
  sizes = {'train': train, 'validation': validation, 'test': test}
  return Dataset(spec, {name: small_split(n, name, spec) for name, n in sizes.items()}, {})

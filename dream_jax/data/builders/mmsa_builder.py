"""What the data sets of MMSA's feature files have in common: a builder states files and shapes, the rest is here."""

import collections
import dataclasses
import os
from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data import seals
from dream_jax.data.builders import mmsa, source_file
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.spec import DatasetSpec, ModalitySpec

CITATION = """
@inproceedings{mao2022msena,
  author = {Mao, Huisheng and Yuan, Ziqi and Xu, Hua and Yu, Wenmeng and Liu, Yihe and Gao, Kai},
  title = {{M-SENA}: An Integrated Platform for Multimodal Sentiment Analysis},
  booktitle = {Proceedings of ACL: System Demonstrations},
  year = {2022},
}
"""
RELEASE_NOTES = {
  '1.0.0': 'First version.',
  '1.1.0': 'The sentiment in words is `annotation`; `label_<modality>` is for labels of single modalities.',
}


@dataclasses.dataclass(eq=False)
class MmsaConfig(tfds.core.BuilderConfig):
  """One file of a data set.

  Attributes:
    file: its name.
    sha256: of the published file.
    aligned: whether audio and vision share the time steps of the text.
    shapes: [T, D] of text, audio and vision.
  """

  file: str = ''
  sha256: str = ''
  aligned: bool = False
  shapes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1), (1, 1))

  @property
  def by_name(self) -> dict[str, tuple[int, int]]:
    """[T, D] of each modality."""
    return dict(zip(('text', 'audio', 'vision'), self.shapes, strict=True))

  @property
  def layout(self) -> str:
    """The arrays of a split, for people."""
    return ', '.join(f'{name} [N, {t}, {d}]' for name, (t, d) in self.by_name.items())


class MmsaBuilder(ModalityBuilder, skip_registration=True):
  """A regression data set of three sequences from one MMSA pickle; subclasses set the class attributes.

  Attributes:
    FOLDER: of the published files.
    LABEL_RANGE: (lowest, highest) label.
    ROWS: samples of train, validation and test in the published files.
    UNIMODAL_LABELS: whether every modality has a label of its own: extras `label_text`, `label_audio`, `label_vision`.
  """

  FOLDER: ClassVar[str] = ''
  LABEL_RANGE: ClassVar[tuple[float, float]] = (-3.0, 3.0)
  ROWS: ClassVar[tuple[int, int, int]] = (0, 0, 0)
  UNIMODAL_LABELS: ClassVar[bool] = False

  @property
  def own_config(self) -> MmsaConfig:
    """The TFDS config, by its own type."""
    return cast(MmsaConfig, self.builder_config)

  @property
  def dataset_spec(self) -> DatasetSpec:
    return DatasetSpec(
      name=f'{self.name}/{self.own_config.name}',
      modalities=tuple(ModalitySpec(n, 'sequence', shape) for n, shape in self.own_config.by_name.items()),
      task='regression',
      num_outputs=1,
      data_kind='real',
      label_range=self.LABEL_RANGE,
    )

  @property
  def known_sizes(self) -> dict[str, int]:
    return dict(zip(('train', 'validation', 'test'), self.ROWS, strict=True))

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    steps = self.own_config.by_name['text'][0]
    extras: dict[str, tfds.features.FeatureConnector] = {
      'text_bert': tfds.features.Tensor(shape=(3, steps), dtype=np.int32, encoding='bytes'),
      'raw_text': tfds.features.Text(),
      'annotation': tfds.features.Text(),
    }
    if self.UNIMODAL_LABELS:
      extras |= {f'label_{name}': tfds.features.Scalar(dtype=np.float32) for name in mmsa.UNIMODAL_LABELS}
    return extras

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str:
    config = self.own_config
    return source_file.find(
      config.file,
      manual_dir,
      f'{self.name}/{config.name}',
      folders=(os.path.join(self.FOLDER, 'Processed'), self.name, 'Processed'),
      origin=(
        f'the pickle {{train, valid, test: {{id, {config.layout}, regression_labels [N], ...}}}} from '
        f'{source(self.FOLDER)}, sha256 {config.sha256}'
      ),
      explicit=explicit,
    )

  @property
  def published(self) -> tuple[str, ...]:
    return (self.own_config.sha256,)

  def _split_generators(self, dl_manager):
    config = self.own_config
    path = self.find_source(os.fspath(dl_manager.manual_dir))
    published = seals.digest(path) == config.sha256
    splits = mmsa.read_mmsa(
      path,
      config.by_name,
      aligned=config.aligned,
      label_range=self.LABEL_RANGE,
      unimodal_labels=self.UNIMODAL_LABELS,
      published=published,
    )
    self.require_memory(sum(len(split['id']) for split in splits.values()))
    if not published:
      self.notes = (f'note: {path} is not the published file (sha256 differs); its content was checked and is used',)
    for name, longest in ((name, t) for name, (t, _) in config.by_name.items()):
      cut = sum(int(mmsa.longer(split, config.by_name).get(name, np.zeros(1)).sum()) for split in splits.values())
      if cut:
        self.notes += (
          f'note: {cut} samples of {path} were longer in {name} than the {longest} frames it holds of them',
        )
    counts = collections.Counter(key for split in splits.values() for key in split['id'])
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
      self.notes += (f'note: {len(twice)} ids are in more than one split of {path}, such as {min(twice)}',)
    return {name: self._generate_examples(path, split) for name, split in splits.items()}

  def _generate_examples(self, path, split) -> Iterator[tuple[str, dict]]:
    for sample in mmsa.samples(path, split, self.own_config.by_name, unimodal_labels=self.UNIMODAL_LABELS):
      yield sample['id'], sample


def source(folder: str) -> str:
  """Where the files of a data set are linked from."""
  return f'the data links of the README of github.com/thuiar/MMSA (folder {folder}/Processed)'


def instructions(builder: str, folder: str, rows: tuple[int, int, int], configs: list[MmsaConfig]) -> str:
  """MANUAL_DOWNLOAD_INSTRUCTIONS of a data set: which file, from where, into which folder, with what in it."""
  lines = [f'Fetch the file of the config from {source(folder)}:']
  lines += [f'  {c.name}: {c.file}, sha256 {c.sha256}' for c in configs]
  lines += [
    f'and put it into the manual folder, as FILE, {builder}/FILE, Processed/FILE or {folder}/Processed/FILE.',
    "It is a pickle of {'train'|'valid'|'test': {'id', 'raw_text', 'text', 'text_bert', 'audio', 'vision',",
    f"'regression_labels', ...}}}} with N = {rows[0]}, {rows[1]} and {rows[2]} rows.",
  ]
  lines += [f'  {c.name}: {c.layout}' + ('' if c.aligned else ', audio_lengths, vision_lengths [N]') for c in configs]
  return '\n'.join(lines)

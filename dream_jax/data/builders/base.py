"""What every builder of this package has in common: its TFDS features follow from its `DatasetSpec`.

A builder states its spec once; `id`, one feature per modality, `<name>_length` and `label` are derived here, so the
files on disk and the models' view of them cannot disagree.
"""

import math
import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data import seals
from dream_jax.errors import UserError
from dream_jax.machine import memory
from dream_jax.spec import DatasetSpec


class _Info(tfds.core.DatasetInfo):
  """Facts about data sets that are nowhere but here."""

  def initialize_from_bucket(self) -> None:
    """Looks nothing up: TFDS would leave an empty temporary folder behind, each time."""

  def write_to_directory(self, dataset_info_dir: Any, all_metadata: bool = True) -> None:
    """The last that is written before the folder gets its name, so the seal is in it from the first."""
    super().write_to_directory(dataset_info_dir, all_metadata)
    builder: Any = self._builder_or_identity
    seals.refuse_changed(builder.source_paths, builder.sources)
    seals.write(os.fspath(dataset_info_dir), self.full_name, builder.sources)


class ModalityBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A TFDS builder of a multimodal data set with `train`, `validation` and `test` splits.

  Subclasses implement `dataset_spec`, `_split_generators`, `_generate_examples` and set `DESCRIPTION`, `CITATION`,
  `LICENSE` and `HOMEPAGE`. Examples carry raw values: NaN and infinities stay in the files and are counted when read.
  """

  DESCRIPTION = ''
  CITATION = ''
  LICENSE = ''
  HOMEPAGE = ''
  notes: tuple[str, ...] = ()  # Lines for the user, set while preparing.
  source_paths: tuple[str, ...] = ()  # The user's files, and what they were, set before preparing.
  sources: tuple[seals.Source, ...] = ()

  def __init_subclass__(cls, **options: Any) -> None:
    """Keeps builders out of TFDS's own list of names: a file that defines one may be read twice."""
    super().__init_subclass__(**{'skip_registration': True, **options})

  @property
  def dataset_spec(self) -> DatasetSpec:
    """The contract between this data set and the models."""
    raise NotImplementedError

  @property
  def known_sizes(self) -> dict[str, int]:
    """Samples of each split as far as they are known before a source is read."""
    return {}

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    """Features beyond id, modalities, lengths and label; they arrive in `Split.extras`."""
    return {}

  def require_memory(self, num_samples: int) -> None:
    """Refuses a data set that could not be trained on: raw and standardised values are in memory together.

    Raises:
      UserError: too little memory for that many samples.
    """
    values = sum(math.prod(m.shape) for m in self.dataset_spec.modalities)
    memory.require(2 * 4 * values * num_samples, f'training on {self.dataset_spec.name} ({num_samples} samples)')

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str | None:
    """Path of the user's source file in `manual_dir`, or None where the builder needs none.

    Args:
      manual_dir: folder to look in.
      explicit: whether the user named that folder.

    Raises:
      UserError: the file is not there.
    """
    del manual_dir, explicit
    return None

  def source_files(self, manual_dir: str, *, explicit: bool = True) -> list[str]:
    """Every file of the user that is read, found as `find_source` does; none where the builder needs none."""
    path = self.find_source(manual_dir, explicit=explicit)
    return [] if path is None else [path]

  @property
  def published(self) -> tuple[str, ...]:
    """SHA-256 of source files that are known to be right."""
    return ()

  @classmethod
  def config_from_options(
    cls, name: str | None, options: dict, folder: str | None = None
  ) -> tfds.core.BuilderConfig | str | None:
    """The TFDS config for `<dataset>/<name>` with the user's options and, where the data set takes one, folder.

    Raises:
      UserError: unknown config name or option, or a folder that this data set does not take.
    """
    if folder is not None:
      raise UserError(f"data set {cls.name} takes no folder; found {folder}: data.dir is for data.name='folder'")
    if options:
      raise UserError(f'data set {cls.name} takes no options; found {", ".join(sorted(options))}: remove them')
    known = [c.name for c in cls.BUILDER_CONFIGS]
    if name is not None and name not in known:
      expected = ', '.join(f'{cls.name}/{k}' for k in known) or cls.name
      raise UserError(f'unknown data set {cls.name}/{name}; expected {expected}')
    return name

  def _info(self) -> tfds.core.DatasetInfo:
    spec = self.dataset_spec
    return _Info(
      builder=self,
      description=self.DESCRIPTION,
      features=tfds.features.FeaturesDict(_features(spec) | self.extra_features()),
      homepage=self.HOMEPAGE or None,
      citation=self.CITATION or None,
      license=self.LICENSE or None,
      metadata=tfds.core.MetadataDict(task=spec.task, data_kind=spec.data_kind, modalities=list(spec.names)),
    )


def _features(spec: DatasetSpec) -> dict[str, tfds.features.FeatureConnector]:
  """TFDS features of a spec."""
  features: dict[str, tfds.features.FeatureConnector] = {'id': tfds.features.Text()}
  for m in spec.modalities:
    # Raw bytes: as feature lists of floats the same arrays take about six times longer to write.
    dtype = np.int32 if m.kind == 'tokens' else np.float32
    features[m.name] = tfds.features.Tensor(shape=m.shape, dtype=dtype, encoding='bytes')
    if m.has_length:
      features[m.length_name] = tfds.features.Scalar(dtype=np.int32)
  if spec.task == 'multiclass' and spec.class_names:
    features['label'] = tfds.features.ClassLabel(names=spec.class_names)
  elif spec.task == 'multilabel':
    features['label'] = tfds.features.Tensor(shape=(spec.num_outputs,), dtype=np.float32)
  else:
    features['label'] = tfds.features.Scalar(dtype=np.float32 if spec.task == 'regression' else np.int32)
  return features

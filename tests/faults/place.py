"""Where faults are tried: a small folder of data, a model that compiles in a second, and the commands on them."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

TOML = """
name = "small"
task = "multiclass"
label = "mood"
splits = "part"
id = "who"

[modalities]
pulse = "sequence"
pose = "vector"
words = { kind = "tokens", vocab_size = 30 }
"""
SAMPLES = 40

# Seconds, and still every phase: several saves, a calibration, a comparison, tables and pictures.
_SMALL = (
  '--config=configs/npz.py:quick',
  '--config.num_seeds=1',
  '--config.model.width=4',
  '--config.model.hidden=4',
  '--config.train.batch_size=8',
  '--config.train.epochs=4',
  '--config.train.num_evals=4',
  '--config.train.validation_draws=1',
  '--config.train.checkpoint_seconds=0.001',
  "--config.controls=('majority',)",
)
PROTOCOLS = "--config.protocols=('modality/zeros',)"
OTHER_PROTOCOLS = "--config.protocols=('modality/noise', 'subset/zeros')"
STUDY = (
  '--mode=study',
  "--config.study.methods=('majority',)",
  "--config.study.regimes=('complete', 'modality/0.5')",
  '--config.study.search.points=2',
  "--config.study.search.fields=(('optimizer.learning_rate', 'log', 0.001, 0.01),)",
)


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
  """Samples of a sequence, a vector and tokens; another seed gives others of the same shapes."""
  rng = np.random.default_rng(seed)
  label = np.arange(SAMPLES) % 3
  parts = np.array(['train', 'train', 'train', 'validation', 'test'])
  frames, tokens = rng.integers(2, 7, SAMPLES), rng.integers(1, 6, SAMPLES)
  pulse = rng.normal(size=(SAMPLES, 6, 2)).astype(np.float32) + label[:, None, None]
  return {
    'pulse': np.where((np.arange(6) < frames[:, None])[..., None], pulse, 0),
    'pulse_length': frames,
    'pose': rng.normal(size=(SAMPLES, 4)).astype(np.float32) - label[:, None],
    'words': np.where(np.arange(5) < tokens[:, None], rng.integers(2, 30, (SAMPLES, 5)), 0),
    'words_length': tokens,
    'mood': label,
    'part': parts[np.arange(SAMPLES) % len(parts)],
    'who': np.array([f's{i}' for i in range(SAMPLES)]),
  }


def write_data(folder: Path, seed: int = 0) -> Path:
  """The folder, with these samples and what they mean."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'dataset.toml').write_text(TOML)
  np.savez(folder / 'data.npz', **arrays(seed))  # pyright: ignore[reportArgumentType]  # Any name is one of an array.
  return folder


@dataclasses.dataclass(frozen=True)
class Place:
  """Folders that belong together.

  Attributes:
    root: holds what one trial makes.
    data: the user's data.
    prepared: what is prepared of them; several places may share it.
    compiled: programs; what one compiled, all others read.
    model: the method under study.
  """

  root: Path
  data: Path
  prepared: Path
  compiled: Path
  model: str = 'concat'

  @property
  def workdir(self) -> Path:
    """Of the commands."""
    return self.root / 'run'

  def command(self, *more: str, protocols: str = PROTOCOLS) -> list[str]:
    """Arguments of the command line; a training unless `more` says another mode."""
    return [
      *_SMALL,
      protocols,
      f'--config.model.name={self.model}',
      f'--config.data.dir={self.data}',
      f'--config.data.tfds_dir={self.prepared}',
      f'--config.compile_cache={self.compiled}',
      f'--workdir={self.workdir}',
      *more,
    ]

  def again(self, root: Path, *, prepared: Path | None = None) -> 'Place':
    """The same elsewhere, with a copy of the workdir where there is one."""
    other = dataclasses.replace(self, root=root, prepared=prepared or self.prepared)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    if self.workdir.exists():
      shutil.copytree(self.workdir, other.workdir)
    return other

"""From a user's source files to prepared files: done once, by one process at a time, whole or not at all.

Prepared files are TFDS's: shards of examples whose arrays are raw float32 or int32 bytes; no pickle is read again.
"""

import contextlib
import glob
import io
import os
import shutil
from collections.abc import Iterator
from typing import Any

from dream_jax import disk
from dream_jax.errors import UserError
from dream_jax.paths import expanded

# TFDS sorts examples by key and keeps up to 1 GB of them in memory before it sorts on disk: too much beside a source.
_SORT_BYTES = 128 << 20


def prepared_builder(
  builder_class: Any,
  config_name: str | None,
  *,
  tfds_dir: str | None,
  manual_dir: str | None,
  folder: str | None,
  options: dict[str, Any],
) -> Any:
  """A builder whose files are on disk.

  Args:
    builder_class: a `ModalityBuilder`.
    config_name: which of its configs; None means the first.
    tfds_dir: where prepared files lie; TFDS's default when None.
    manual_dir: folder with files the user downloaded.
    folder: the user's own data.
    options: options of the data set.

  Raises:
    UserError: an option or source file that is absent or wrong, or prepared files that are broken.
  """
  builder, root, target = builder_and_place(
    builder_class, config_name, tfds_dir=tfds_dir, folder=folder, options=options
  )
  if os.path.isdir(target):
    return builder
  downloads = os.path.abspath(
    expanded(manual_dir or os.path.join(root, 'downloads', 'manual'), 'config.data.manual_dir')
  )
  builder.find_source(downloads, explicit=manual_dir is not None)
  builder.require_memory(sum(builder.known_sizes.values()))
  with _naming_refusals(root), _alone(target):
    if not os.path.isdir(target):
      _prepare(builder, target, downloads)
  for note in builder.notes:
    print(note, flush=True)
  with naming_broken_files(target), quiet():
    return builder_class(data_dir=root, config=builder.builder_config)


def builder_and_place(
  builder_class: Any,
  config_name: str | None,
  *,
  tfds_dir: str | None,
  folder: str | None,
  options: dict[str, Any],
) -> tuple[Any, str, str]:
  """(builder, where prepared data sets lie, where the files of this one lie or would lie); nothing is prepared.

  Raises:
    UserError: an option that is wrong, or prepared files that are broken.
  """
  import tensorflow_datasets as tfds

  config = builder_class.config_from_options(config_name, options, folder)
  given = tfds_dir or tfds.core.constants.DATA_DIR  # pyright: ignore[reportAttributeAccessIssue]  # Lazy.
  root = os.path.abspath(expanded(given, 'config.data.tfds_dir'))
  configs = builder_class.BUILDER_CONFIGS
  chosen = getattr(config, 'name', config) or (configs[0].name if configs else '')
  target = os.path.join(root, builder_class.name, chosen, str(builder_class.VERSION))
  with naming_broken_files(target), quiet():
    return builder_class(data_dir=root, config=config), root, target


def _prepare(builder: Any, target: str, downloads: str) -> None:
  """Writes the files of a builder; nobody else writes there meanwhile."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import shuffle

  parent, version = os.path.split(target)
  for left in glob.glob(os.path.join(glob.escape(parent), f'incomplete.*_{version}')):  # Of one that was killed.
    shutil.rmtree(left)
  print(f'preparing data set {builder.info.full_name} in {target} (first use)', flush=True)
  download_config = tfds.download.DownloadConfig(manual_dir=downloads, try_download_gcs=False)
  sort_bytes, shuffle.MAX_MEM_BUFFER_SIZE = shuffle.MAX_MEM_BUFFER_SIZE, _SORT_BYTES
  try:
    with quiet():
      builder.download_and_prepare(download_config=download_config)
  finally:
    shuffle.MAX_MEM_BUFFER_SIZE = sort_bytes


@contextlib.contextmanager
def _alone(target: str) -> Iterator[None]:
  """Waits until no other process prepares `target`; a killed one does not hold the lock."""
  import fcntl  # Not there on Windows, where the package should still be able to say so.

  os.makedirs(os.path.dirname(target), exist_ok=True)
  with open(os.path.join(os.path.dirname(target), '.lock'), 'a', encoding='utf-8') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _naming_refusals(root: str) -> Iterator[None]:
  """Turns what the disk of the prepared files refuses into one line that says where else they may lie."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    refused = disk.refusal(error)
    if refused is None or not str(refused.filename or root).startswith(root):  # A source file, for instance.
      raise
    raise UserError(
      f'{refused.strerror}: {refused.filename or root}; make room there, or choose another folder for prepared data'
      ' (config.data.tfds_dir; --tfds_dir of a check)'
    ) from error


@contextlib.contextmanager
def naming_broken_files(folder: str) -> Iterator[None]:
  """Turns whatever TFDS and TensorFlow raise on damaged files into one line that says what to delete."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    if not os.path.isdir(folder):
      raise
    reason = ' '.join(str(error).split())[:160] or type(error).__name__
    message = f'the prepared files in {folder} are broken ({reason}); delete that folder and run again'
    raise UserError(message) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Silences progress bars, log lines and banners of TFDS and TensorFlow; exceptions pass."""
  from absl import logging

  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)

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

from dream_jax.data import reading, seals
from dream_jax.errors import UserError
from dream_jax.machine.paths import expanded

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
    UserError: an option or source file that is absent, wrong or not what it was when it was prepared, prepared files
      that are broken, or a place that cannot be written to.
  """
  builder, root, target = builder_and_place(
    builder_class, config_name, tfds_dir=tfds_dir, folder=folder, options=options
  )
  downloads = _folder_named(manual_dir or os.path.join(root, 'downloads', 'manual'), 'manual_dir')
  if os.path.exists(downloads) and not (os.path.isdir(downloads) and os.access(downloads, os.R_OK | os.X_OK)):
    found = 'cannot be read by this user' if os.path.isdir(downloads) else 'is no folder'
    raise UserError(f'{downloads} {found}; expected the folder of the source files: --config.data.manual_dir=DIR')
  explicit = manual_dir is not None
  if not os.path.isdir(target):
    builder.source_paths = tuple(builder.source_files(downloads, explicit=explicit))
    if not builder.source_paths:  # It makes its samples itself; of files it is known when they are read.
      builder.require_memory(sum(builder.known_sizes.values()))
    with naming_place(root), _alone(target):
      if not os.path.isdir(target):
        _prepare(builder, target, downloads)
    for note in (*builder.notes, *seals.described(builder.source_paths, builder.sources, builder.published)):
      print(note, flush=True)
    with naming_broken_files(target), quiet():
      builder = builder_class(data_dir=root, config=builder.builder_config)
  _compare(builder, root, target, downloads, explicit=explicit)
  return builder


def _compare(builder: Any, root: str, target: str, downloads: str, *, explicit: bool) -> None:
  """Refuses prepared files that are not what was written, or not of the user's files as they are now."""
  with naming_broken_files(target):
    seals.check(target, os.path.relpath(target, root), records=True)
    if not seals.is_sealed(target):
      print(
        f'note: the prepared files in {target} have no {seals.SEAL} (an earlier version wrote them): not all damage '
        'to them is seen; to have one, delete that folder and run again',
        flush=True,
      )
      return
    try:
      paths = builder.source_files(downloads, explicit=explicit)
    except UserError:  # What is prepared needs no source.
      return
    if paths:
      seals.compare(target, paths)


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
  default: str = tfds.core.constants.DATA_DIR  # pyright: ignore[reportAttributeAccessIssue]  # Lazy.
  root = _folder_named(tfds_dir or default or '~/tensorflow_datasets', 'tfds_dir')
  configs = builder_class.BUILDER_CONFIGS
  chosen = getattr(config, 'name', config) or (configs[0].name if configs else '')
  target = os.path.join(root, builder_class.name, chosen, str(builder_class.VERSION))
  with naming_broken_files(target), quiet():
    if os.path.isdir(target):
      seals.check(target, os.path.relpath(target, root), records=False)
    return builder_class(data_dir=root, config=config), root, target


def _folder_named(name: str, flag: str) -> str:
  """The absolute path of a folder that the user names.

  Raises:
    UserError: it lies elsewhere than on this machine, or in the home folder of a user who has none.
  """
  if '://' in name or '\0' in name:
    raise UserError(f'{flag} is {name!r}; expected a folder of this machine: name one with --config.data.{flag}=DIR')
  try:
    return os.path.abspath(expanded(name))
  except UserError as error:
    raise UserError(
      f'{name} is in a home folder that does not exist; name another with --config.data.{flag}=DIR'
    ) from error


def _prepare(builder: Any, target: str, downloads: str) -> None:
  """Writes the files of a builder; nobody else writes there meanwhile."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import shuffle

  parent, version = os.path.split(target)
  for left in glob.glob(os.path.join(glob.escape(parent), f'incomplete.*_{version}')):  # Of one that was killed.
    shutil.rmtree(left)
  print(f'preparing data set {builder.info.full_name} in {target} (first use)', flush=True)
  builder.sources = seals.sources_of(builder.source_paths)
  download_config = tfds.download.DownloadConfig(manual_dir=downloads, try_download_gcs=False)
  sort_bytes, shuffle.MAX_MEM_BUFFER_SIZE = shuffle.MAX_MEM_BUFFER_SIZE, _SORT_BYTES
  try:
    with quiet():
      builder.download_and_prepare(download_config=download_config)
  except Exception as error:
    if isinstance(error, UserError) or _said_by_disk(error) or not builder.source_paths:
      raise
    path, name = builder.source_paths[0], builder.info.full_name
    raise UserError(
      f'{path} cannot be prepared as data set {name} ({_said_by_tfds(error)}); it is damaged, or the file of another '
      'data set: fetch or write it again'
    ) from error
  finally:
    shuffle.MAX_MEM_BUFFER_SIZE = sort_bytes


def _said_by_tfds(error: Exception) -> str:
  """What went wrong while samples were written, for the user."""
  from tensorflow.train import Example  # pyright: ignore[reportMissingImports]
  from tensorflow_datasets.core import shuffle

  cause = error.__context__
  if isinstance(cause, shuffle.DuplicatedKeysError):  # TFDS logs the two samples in full.
    key = Example.FromString(cause.item1).features.feature['id'].bytes_list.value[0]
    return f'two samples have the id {key.decode("utf-8")!r}'
  return reading.said(error)


@contextlib.contextmanager
def naming_place(root: str) -> Iterator[None]:
  """Turns what the disk answers while prepared files are written into one line that says where else they could go.

  Raises:
    UserError: instead of what the system or TensorFlow raises about files.
  """
  try:
    yield
  except (UserError, BrokenPipeError):  # Nobody listens any more: no matter of this folder.
    raise
  except Exception as error:
    reason = _said_by_disk(error)
    if not reason:
      raise
    raise UserError(
      f'prepared data cannot be written to {root} ({reason}); make room there, let this user write to it, or name '
      'another folder with --config.data.tfds_dir=DIR'
    ) from error


def _said_by_disk(error: BaseException | None) -> str:
  """What the system said about a file, in an exception or in one that led to it; '' if it was not asked."""
  from tensorflow.errors import OpError  # pyright: ignore[reportMissingImports]

  while error is not None:
    if isinstance(error, OSError) and error.errno is not None:
      return f'{error.strerror}: {error.filename}' if error.filename else str(error.strerror)
    if isinstance(error, OpError):
      return reading.said(error)
    error = error.__cause__ or error.__context__
  return ''


@contextlib.contextmanager
def _alone(target: str) -> Iterator[None]:
  """Waits until no other process prepares `target`; a killed one does not hold the lock."""
  import fcntl  # Not there on Windows, where the package should still be able to say so.

  os.makedirs(os.path.dirname(target), exist_ok=True)
  with open(os.path.join(os.path.dirname(target), '.lock'), 'a', encoding='utf-8') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'another process prepares {target}: waiting for it', flush=True)
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def naming_broken_files(folder: str) -> Iterator[None]:
  """Turns whatever TFDS and TensorFlow raise on damaged files into one line that says what to delete."""
  try:
    yield
  except UserError:
    raise
  except MemoryError as error:
    raise UserError(f'reading the prepared files in {folder} needs more memory than there is') from error
  except Exception as error:
    if not os.path.isdir(folder):
      raise
    if isinstance(error, PermissionError):
      raise UserError(
        f'the prepared files in {folder} cannot be read ({error.strerror}: {error.filename}); let this user read them, '
        'or name another folder with --config.data.tfds_dir=DIR'
      ) from error
    message = f'the prepared files in {folder} are broken ({reading.said(error)}); delete that folder and run again'
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

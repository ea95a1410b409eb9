"""Where the files of a run lie: a folder, or a bucket (`gs://BUCKET/...`) through etils and gcsfs.

A folder has renames, appends and locks; a bucket has none of them, but an object appears whole or not at all, and a
write can demand that nobody wrote since. Both come to the same here: a file is whole, a line that is synced stays, and
of two writers of one log the second is told. Arrays of checkpoints go to either through Orbax and TensorStore.
"""

import contextlib
import errno
import fcntl
import functools
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from etils import epath

from dream_jax.errors import UserError
from dream_jax.machine import paths

_BUCKET = 'gs://'
_LOCK = '.lock'
# What `write` calls a file that is not whole yet, with the number of its process.
_TEMPORARY = re.compile(r'\..+\.tmp-(\d+)')
# What file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _installed(name: str) -> bool:
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:  # Of a parent package.
    return False


# etils asks once, at the first path of any kind. It would prefer the client of TensorFlow, which remembers for seconds
# what is not there.
if _installed('gcsfs'):
  os.environ.setdefault('EPATH_USE_TF', '0')


def in_bucket(path: str | os.PathLike[str]) -> bool:
  """Whether the path is one of a bucket."""
  return os.fspath(path).startswith(_BUCKET)


def place(path: str | os.PathLike[str]) -> epath.Path:
  """The path, ready to be read and written.

  Raises:
    UserError: it is a URL of something else than a bucket, the packages for buckets are not installed, or the bucket
      cannot be reached.
  """
  text = os.fspath(path)
  if not in_bucket(text):
    if '://' in text:
      raise UserError(f'{text} is neither a folder nor in a bucket; expected a path, or gs://BUCKET/FOLDER')
    return epath.Path(paths.expanded(text))
  bucket, _, inside = text.removeprefix(_BUCKET).partition('/')
  if not bucket or not inside.strip('/'):
    raise UserError(f'{text} names no folder in a bucket; expected gs://BUCKET/FOLDER')
  _reach(bucket)
  return epath.Path(text)


def without_wildcards(name: str) -> str:
  """The name of a method as that of a folder: dream[model.assess=False] becomes dream(model.assess=False).

  Orbax looks for the parts of a save by `glob`. Where a folder above them has brackets in its name it finds none, says
  so to nobody, and the finished save cannot be read.
  """
  return name.translate(str.maketrans('[]*?/', '()___'))


def refuse_wildcards(path: str | os.PathLike[str]) -> None:
  """Raises UserError where checkpoints could not be read again, see `without_wildcards`."""
  whole = os.fspath(path) if in_bucket(path) else os.path.abspath(path)
  found = sorted(set(whole) & set('[*?'))
  if found:
    raise UserError(
      f'{whole} contains {", ".join(found)}, which the library that saves checkpoints takes for wildcards: what it '
      'saves there could not be read again; choose a --workdir whose whole path has no *, ? or ['
    )


def write(path: str | os.PathLike[str], content: bytes) -> None:
  """Replaces the whole content of the file, or leaves the old file as it is; makes the folder.

  Raises:
    OSError: the disk is full, read-only or not ours to write, or the bucket refuses.
  """
  path = place(path)
  if in_bucket(path):
    try:
      path.write_bytes(content)
    except OSError:
      raise
    except Exception as error:  # gcsfs has exceptions of its own.
      raise OSError(errno.EIO, _first_line(error), str(path)) from error
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = Path(path.with_name(f'.{path.name}.tmp-{os.getpid()}'))
  try:
    with naming(path), open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
  _sync_folder(path.parent)


@contextlib.contextmanager
def lock(folder: str | os.PathLike[str]) -> Iterator[None]:
  """Keeps a folder for this process; the folder is made, and goes again if nothing was written into it.

  What a killed process had half written there is removed.

  The system gives the lock back when the process ends, however it ends; a stopped process keeps it. A bucket has no
  locks.

  Raises:
    UserError: another process is at work in the folder, or the folder cannot be made.
  """
  path = place(folder)
  if in_bucket(path):
    yield
    return
  made = [parent for parent in (path, *path.parents) if not parent.exists()]
  try:
    path.mkdir(parents=True, exist_ok=True)
  except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
    raise UserError(f'--workdir={path} cannot be made ({error.strerror}); choose another place') from error
  file = _locked(path / _LOCK)
  try:
    yield
  finally:
    with contextlib.suppress(OSError):  # All that is lost is tidiness.
      if os.listdir(path) == [_LOCK]:
        os.unlink(path / _LOCK)
        for parent in made:
          os.rmdir(parent)
    os.close(file)


def _locked(path: epath.Path) -> int:
  """Descriptor of the file, locked."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Its last owner may have removed it since it was opened.
      if os.path.exists(path) and os.path.samestat(os.fstat(file), os.stat(path)):
        _remove_left_behind(path.parent)
        return file
    except OSError as error:
      if error.errno in _NO_LOCKS:
        print(f'{path.parent} cannot be locked ({error.strerror}): start no second process there', flush=True)
        return file
      os.close(file)
      if error.errno not in (errno.EAGAIN, errno.EACCES):
        raise
      raise _another(path) from None
    os.close(file)


def _remove_left_behind(folder: epath.Path) -> None:
  """Removes what `write` left below a folder where its process was killed; nobody but us writes there now.

  Whoever makes a report again needs no lock, so what belongs to a living process stays, and so does another workdir.
  """
  for where, below, files in os.walk(folder):
    below[:] = [name for name in below if not os.path.exists(os.path.join(where, name, _LOCK))]
    for name in files:
      found = _TEMPORARY.fullmatch(name)
      if found and not _lives(int(found[1])):
        with contextlib.suppress(OSError):  # All that is lost is tidiness.
          os.unlink(os.path.join(where, name))


def _lives(process: int) -> bool:
  """Whether another process has this number; our own was that of a dead one, as in every new container."""
  try:
    os.kill(process, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    return True
  return process != os.getpid()


def remove_folder(path: str | os.PathLike[str]) -> None:
  """Removes a folder with all that is in it, as far as that is possible."""
  if in_bucket(path):
    place(path).rmtree(missing_ok=True)
  else:
    shutil.rmtree(path, ignore_errors=True)


def free_bytes(path: str | os.PathLike[str]) -> int | None:
  """Bytes that are left where the folder is; None for a bucket, which does not fill up."""
  return None if in_bucket(path) else shutil.disk_usage(path).free


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
  """Errors of an open file get the name of the file: the system leaves it out."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


class Log(Protocol):
  """A file that grows."""

  def read(self) -> bytes:
    """All that is there."""
    ...

  def truncate(self, size: int) -> None:
    """Drops what follows the first `size` bytes."""
    ...

  def append(self, data: bytes) -> None:
    """Adds all of `data` or, with an OSError, none."""
    ...

  def sync(self) -> None:
    """Returns when what was appended will outlive this process and its machine."""
    ...

  def close(self) -> None:
    """Syncs what a bucket has not seen yet, and lets others write."""
    ...


def open_log(path: str | os.PathLike[str]) -> Log:
  """A log, opened for appending; made if it is not there.

  In a folder `lock` keeps other writers out. In a bucket the later of two writers is refused when it first syncs.
  """
  path = place(path)
  if in_bucket(path):
    return _BucketLog(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  return _FileLog(path)


class _FileLog:
  def __init__(self, path: epath.Path):
    self._path = path
    self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)

  def read(self) -> bytes:
    return self._path.read_bytes()

  def truncate(self, size: int) -> None:
    os.ftruncate(self._file, size)

  def append(self, data: bytes) -> None:
    # One write: with O_APPEND nothing can land inside it.
    with naming(self._path):
      written = os.write(self._file, data)
    if written != len(data):  # A full disk takes a part.
      os.ftruncate(self._file, os.fstat(self._file).st_size - written)
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

  def sync(self) -> None:
    with naming(self._path):
      os.fsync(self._file)

  def close(self) -> None:
    os.close(self._file)


class _BucketLog:
  """The whole object is kept here and written again: logs are small beside checkpoints, and synced as seldom."""

  def __init__(self, path: epath.Path):
    from google.cloud import exceptions

    bucket, _, name = os.fspath(path).removeprefix(_BUCKET).partition('/')
    self._path, self._blob = path, _client().bucket(bucket).blob(name)
    self._content, self._generation, self._changed = bytearray(), 0, False
    try:
      self._blob.reload()
      self._generation = self._blob.generation
      self._content += self._blob.download_as_bytes()
    except exceptions.NotFound:
      pass  # 0 is the generation of what is not there.

  def read(self) -> bytes:
    return bytes(self._content)

  def truncate(self, size: int) -> None:
    self._changed |= size < len(self._content)
    del self._content[size:]

  def append(self, data: bytes) -> None:
    self._content += data
    self._changed = True

  def sync(self) -> None:
    from google.cloud import exceptions

    if not self._changed:
      return
    try:
      self._blob.upload_from_string(bytes(self._content), if_generation_match=self._generation)
    except exceptions.PreconditionFailed:
      # Ours as well, where the answer to a write that went through was lost and the client tried again.
      if self._blob.download_as_bytes() != self._content:
        raise _another(self._path) from None
      self._blob.reload()
    except exceptions.GoogleCloudError as error:
      raise OSError(errno.EIO, _first_line(error), str(self._path)) from error
    self._generation, self._changed = self._blob.generation, False

  def close(self) -> None:
    self.sync()


class Mirror:
  """A folder for a library that only writes to disks: itself, or a temporary one whose files go to a bucket.

  Attributes:
    local: where to write.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    self._folder = place(folder)
    self._temporary = tempfile.TemporaryDirectory() if in_bucket(folder) else None
    self.local = Path(self._temporary.name if self._temporary else folder)

  def sync(self) -> None:
    """Copies the files as they are now."""
    for path in self.local.iterdir() if self._temporary else ():
      write(self._folder / path.name, path.read_bytes())

  def close(self) -> None:
    """Copies them for the last time."""
    self.sync()
    if self._temporary:
      self._temporary.cleanup()
      self._temporary = None


def _another(path: epath.Path) -> UserError:
  return UserError(f'another process is at work in {path.parent}; wait for it, stop it or choose another --workdir')


@functools.cache
def _client() -> Any:
  from google.cloud import storage

  return storage.Client()


@functools.cache
def _reach(bucket: str) -> None:
  """Makes buckets readable in this process and asks for this one, so that a mistake is seen before hours of work."""
  missing = [name for name in ('gcsfs', 'google.cloud.storage') if not _installed(name)]
  if missing:
    raise UserError(
      f'{_BUCKET}{bucket} needs {" and ".join(missing)}; install them with: pip install "dream-jax[gcs]", or mount the'
      ' bucket with gcsfuse and give its folder'
    )
  import fsspec
  import fsspec.config

  # What a listing did not show, another process may have written since.
  for protocol in ('gs', 'gcs'):
    fsspec.config.conf.setdefault(protocol, {})['use_listings_cache'] = False
  try:
    found = _client().bucket(bucket).exists()
  except Exception as error:  # Of credentials, of the network, of the service: each library has its own.
    raise UserError(
      f'{_BUCKET}{bucket} cannot be reached ({_first_line(error)}); on a machine of your own run: gcloud auth'
      ' application-default login; the account needs roles/storage.objectUser and roles/storage.legacyBucketReader on'
      ' the bucket'
    ) from error
  if not found:
    raise UserError(
      f'there is no bucket {_BUCKET}{bucket}; make it with: gcloud storage buckets create {_BUCKET}{bucket}'
    )


def _first_line(error: BaseException) -> str:
  return re.sub(r'\s+', ' ', (str(error).splitlines() or [type(error).__name__])[0])[:200]


def _sync_folder(folder: epath.Path) -> None:
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)

"""One .npz file of known arrays, which the user has: found, checked and read, with a clear word where it is not so."""

import itertools
import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from dream_jax.errors import UserError


def find(file: str, manual_dir: str, data_set: str, *, folders: Sequence[str], origin: str, explicit: bool) -> str:
  """Path of `file` in `manual_dir` or one of its `folders`.

  Args:
    file: its name.
    manual_dir: where to look.
    data_set: who needs it, for the message.
    folders: further places below `manual_dir`.
    origin: what the file is and where it comes from, for the message.
    explicit: whether the user named `manual_dir`.

  Raises:
    UserError: it is not there.
  """
  for folder in ('', *folders):
    path = os.path.join(manual_dir, folder, file)
    if os.path.isfile(path):
      return path
  remedy = 'put it there, or name' if explicit else 'name'
  raise UserError(
    f'data set {data_set} needs the file {file}; not found in {os.path.abspath(manual_dir)} nor its folders '
    f'{", ".join(folders)}; it is {origin}; {remedy} its folder with --config.data.manual_dir=DIR'
  )


def read(path: str, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
  """The named arrays of an .npz; no pickle in it is opened.

  Args:
    path: the file.
    shapes: array -> shape; None for a size that may be any.

  Raises:
    UserError: no such archive, or an array that is absent or has another shape.
  """
  arrays = {}
  try:
    with np.load(path, allow_pickle=False) as archive:
      for name, shape in shapes.items():
        if name not in archive.files:
          raise UserError(f'{path} has no array {name!r}; found {", ".join(archive.files)}')
        arrays[name] = archive[name]
        found = arrays[name].shape
        if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
          wanted = ', '.join('any' if n is None else str(n) for n in shape)
          raise UserError(f'{path}: {name} has shape {found}; expected ({wanted})')
  except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
    reason = ' '.join(str(error).split())[:120]
    raise UserError(f'{path} cannot be read as .npz ({reason}); it is damaged or no such file: get it again') from error
  return arrays


def texts(blob: np.ndarray, offsets: np.ndarray) -> list[str]:
  """Row i of UTF-8 texts stored one behind the other: the bytes from offsets[i] to offsets[i + 1]."""
  content = blob.tobytes()
  return [content[a:b].decode('utf-8') for a, b in itertools.pairwise(offsets)]

"""One .npz file of known arrays: checked and read, with a clear word where it is not what it should be."""

import itertools
import zipfile
from collections.abc import Mapping

import numpy as np

from dream_jax.errors import UserError


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

"""Code of the user's own that extends the package: where its source lies, so that a study knows when it changed."""

import sys
from pathlib import Path
from typing import Any

from dream_jax.errors import UserError


def is_own(thing: Any) -> bool:
  """Whether a class or function is not from this package."""
  return not thing.__module__.startswith('dream_jax.')


def source(thing: Any) -> bytes:
  """The file that a class or function is written in.

  Raises:
    UserError: it was not read from a file, as in a notebook.
  """
  file = getattr(sys.modules.get(thing.__module__), '__file__', None)
  if file is None:
    raise UserError(
      f'{thing.__qualname__} is in no file, so that a study could not see when it changes; put it into a .py file and'
      ' import it'
    )
  return Path(file).read_bytes()

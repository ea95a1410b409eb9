"""What a user should know and need not act on: each said once."""

import sys
import warnings


class Notes:
  """Warnings that come once each, however often there is a reason."""

  def __init__(self):
    self._said: set[str] = set()

  def say(self, message: str) -> None:
    """Warns, unless it has been said."""
    if message not in self._said:
      self._said.add(message)
      warn(message)


def warn(message: str) -> None:
  """A warning that names the line of the user: the first that is not of this package."""
  level, frame = 1, sys._getframe(0)
  while frame.f_back is not None and frame.f_globals.get('__name__', '').startswith('dream_jax.'):
    frame, level = frame.f_back, level + 1
  warnings.warn(message, UserWarning, stacklevel=level)

"""Overrides: every field of the config with values that hardly any should accept, through the real command line.

A value is refused in one line that names its field, or accepted and listed: a list that is read by a human tells which
of them should not have been.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.tally import Failure, Tally

VALUES = (
  'nan',
  'inf',
  '-inf',
  '-1',
  '0',
  str(10**20),
  '1e300',
  '0.5',
  'True',
  'nonsense',
  '',
  '()',
  "('nonsense',)",
  '(1.5,)',
)


def fields(config: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """(dotted name, default) of all fields."""
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from fields(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def run(tally: Tally, root: Path) -> None:
  """Tries every value of every field."""
  from dream_jax.cli import flags
  from dream_jax.config import recipe
  from dream_jax.config.default import get_default
  from dream_jax.errors import UserError

  argv = ['main', f'--config={root / "configs" / "npz.py"}']
  for field, default in fields(get_default()):
    for value in VALUES:
      try:
        with contextlib.redirect_stderr(io.StringIO()):
          recipe.recipe_from_config(flags.parse([*argv, f'--config.{field}={value}']).config)
      except UserError as error:
        _judge(tally, field, value, str(error))
      except Exception as error:
        what = f'traceback {type(error).__name__}'
        tally.count('outcomes', what)
        tally.fail(Failure(what, f'--config.{field}={value}', ' '.join(str(error).split())[:200]))
      else:
        _accepted(tally, field, value, default)


def _accepted(tally: Tally, field: str, value: str, default: Any) -> None:
  """Texts may be anything until they are used; no number of ours may be NaN, and no count beyond what counts hold."""
  tally.count('outcomes', 'accepted')
  if not isinstance(default, str | None):
    tally.count('accepted', f'--config.{field}={value}')
  impossible = (isinstance(default, float) and value == 'nan') or (type(default) is int and value == str(10**20))
  if impossible:
    tally.fail(Failure('accepted', f'--config.{field}={value}', 'expected a refusal'))


def _judge(tally: Tally, field: str, value: str, message: str) -> None:
  """A refusal names the field, or the value of a field that names a method, a protocol or a file."""
  if '\n' in message:
    what = 'refused, not in one line'
  elif f'config.{field}' in message or (len(value) > 2 and value.strip("()',") in message):
    what = 'refused'
  else:
    what = 'refused without the name of the field'
  tally.count('outcomes', what)
  if what != 'refused':
    tally.fail(Failure(what, f'--config.{field}={value}', message[:200]))

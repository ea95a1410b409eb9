"""Paths as users type them: ~ stands for the home folder, also where no shell has replaced it."""

import os

from dream_jax.errors import UserError


def expanded(path: str | os.PathLike[str], name: str = '') -> str:
  """The path with the home folder instead of a leading ~ or ~USER; bash leaves it behind `--workdir=`.

  Args:
    path: a file or folder; one in a bucket passes.
    name: the flag or field that holds it, for the message.

  Raises:
    UserError: there is no such home folder; a folder called ~ would be made in the current one.
  """
  text = os.fspath(path)
  user = text.partition('/')[0]
  # An empty variable would make the root of the disk of it.
  whole = text if user == '~' and os.environ.get('HOME') == '' else os.path.expanduser(text)
  if whole.startswith('~'):
    what = f'{name} is {text}' if name else text
    raise UserError(f'{what}; there is no home folder for {user}: write the whole path, or set the variable HOME')
  return whole

"""The one file of a data set that the user has to bring: where it is, or what to say when it is not there."""

import os
from collections.abc import Sequence

from dream_jax.errors import UserError


def find(file: str, manual_dir: str, data_set: str, *, folders: Sequence[str], origin: str, explicit: bool) -> str:
  """Path of `file` in one of the `folders` of `manual_dir`, or in itself.

  Args:
    file: its name.
    manual_dir: where to look.
    data_set: who needs it, for the message.
    folders: places below `manual_dir`, looked at first: files of different data sets may bear one name.
    origin: what the file is and where it comes from, for the message.
    explicit: whether the user named `manual_dir`.

  Raises:
    UserError: it is not there.
  """
  for folder in (*folders, ''):
    path = os.path.join(manual_dir, folder, file)
    if os.path.isfile(path):
      return path
  remedy = 'put it there, or name' if explicit else 'name'
  raise UserError(
    f'data set {data_set} needs the file {file}; not found in {os.path.abspath(manual_dir)} nor its folders '
    f'{", ".join(folders)}; it is {origin}; {remedy} its folder with --config.data.manual_dir=DIR'
  )

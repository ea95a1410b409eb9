"""`python -m dream_jax.datacheck DIR`: what is worth knowing about your own data before anyone trains on it.

Exit codes are those of `machine.exit_codes`: 0 whatever was found, 2 where the input is wrong.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dream_jax.data.datasets import Dataset, load_dataset
from dream_jax.datacheck.advice import advise
from dream_jax.datacheck.description import describe
from dream_jax.datacheck.inspection import Findings, inspect
from dream_jax.errors import UserError, did_you_mean
from dream_jax.machine.exit_codes import exit_code

__all__ = ['describe', 'inspect', 'main']

USAGE = """usage: python -m dream_jax.datacheck DIR [--tfds_dir=DIR] [--json]
       python -m dream_jax.datacheck --name=NAME [--manual_dir=DIR] [--tfds_dir=DIR] [--json]

  DIR          folder of your own data: dataset.toml and the files it names
  --name       instead of DIR: one of the data sets this package knows
  --manual_dir folder with the files of that data set, where it cannot be fetched
  --tfds_dir   where prepared files are kept (default: that of TensorFlow Datasets)
  --json       the findings as JSON instead of text"""

# What other commands call these; messages of loading speak of theirs.
_THEIR_FLAGS = {'--config.data.tfds_dir': '--tfds_dir', '--config.data.manual_dir': '--manual_dir'}
_FLAGS = ('name', 'manual_dir', 'tfds_dir', 'json', 'help')


def main(argv: Sequence[str] | None = None) -> int:
  """The exit code of one command; `argv` is `sys.argv[1:]` unless given."""

  def report() -> None:
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    print(USAGE if arguments.help else _report(arguments))

  return exit_code(report, writes_to='--tfds_dir')


def to_json(findings: Findings) -> str:
  """The findings and the advice as one JSON object; what is no finite number is null."""
  content = {**dataclasses.asdict(findings), 'advice': [dataclasses.asdict(a) for a in advise(findings)]}
  return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
  """The value with null for NaN and infinities, which JSON does not have."""
  if isinstance(value, dict):
    return {key: _finite(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(inner) for inner in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _report(arguments: argparse.Namespace) -> str:
  if not arguments.json:
    return describe(inspect(_load(arguments)))
  with contextlib.redirect_stdout(sys.stderr):  # What loading says is no JSON.
    return to_json(inspect(_load(arguments)))


def _load(arguments: argparse.Namespace) -> Dataset:
  try:
    if arguments.folder is None:
      return load_dataset(arguments.name, tfds_dir=arguments.tfds_dir, manual_dir=arguments.manual_dir)
    return load_dataset('folder', tfds_dir=arguments.tfds_dir, folder=arguments.folder)
  except UserError as error:
    raise UserError(_with_own_flags(str(error))) from error


def _with_own_flags(message: str) -> str:
  """A message that names the flags of this command; what it has no flag for stays as it is."""
  for theirs, ours in _THEIR_FLAGS.items():
    message = message.replace(theirs, ours)
  return message


class _Parser(argparse.ArgumentParser):
  """argparse that raises instead of printing its own usage and leaving."""

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}; see --help')


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line.

  Raises:
    UserError: unknown flags, more than one folder, neither a folder nor a name, or both.
  """
  parser = _Parser(add_help=False, allow_abbrev=False)
  parser.add_argument('folder', nargs='?')
  for name in ('name', 'manual_dir', 'tfds_dir'):
    parser.add_argument(f'--{name}')
  parser.add_argument('--json', action='store_true')
  parser.add_argument('-h', '--help', action='store_true')
  arguments, unknown = parser.parse_known_args(list(argv))
  for argument in unknown:
    if not argument.startswith('-'):
      raise UserError(f'unexpected argument {argument!r}; expected one folder')
    name = argument.lstrip('-').partition('=')[0]
    raise UserError(f'unknown flag --{name}; {did_you_mean(name, _FLAGS, prefix="--")}')
  if not arguments.help and (arguments.folder is None) == (arguments.name is None):
    raise UserError('expected a folder of your own data, or --name=NAME of a data set; see --help')
  if arguments.folder is not None and arguments.manual_dir is not None:
    raise UserError('--manual_dir goes with --name; your own folder holds its files itself')
  return arguments

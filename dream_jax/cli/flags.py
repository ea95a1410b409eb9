"""The command line as typed values: every mistake in it becomes one UserError that names the near thing.

ml_collections finds an unknown field deep inside absl, as a bare AttributeError, and stores a missing file for later.
So the config is loaded and the overrides are checked here first; ml_collections then parses their values.
"""

import ast
import dataclasses
import importlib.util
import inspect
import itertools
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from dream_jax.errors import UserError, did_you_mean, near
from dream_jax.machine.paths import expanded
from dream_jax.parallel.cluster import Cluster

MODES = ('train', 'evaluate', 'study', 'plan', 'report', 'list', 'fields')
USAGE = """usage: python -m dream_jax.main --config=configs/NAME.py[:VARIANT] [--config.FIELD=VALUE ...]
                                [--mode=MODE] [--workdir=DIR]
                                [--distributed | --coordinator=HOST:PORT --num_processes=N --process_id=I]

  --config    Python file with get_config(); what follows a colon is its argument
  --workdir   folder of the run, or gs://BUCKET/FOLDER (default: runs/NAME[-VARIANT]); the same command again
              continues where it stopped
  --mode      train (default): train, select on validation, evaluate, report
              study: many methods and training regimes (config.study), compared; goes on where it stopped
              evaluate: the evaluation again from the checkpoints
              plan: cost, memory and predicted scaling of a training step, compiled and not run; no data are needed
              report: tables and figures again from what is there
              list: what there is to choose from
              fields: every field of the config with its value, range and meaning; defaults without --config
  --config.FIELD=VALUE   overrides one field of the config, for instance --config.train.epochs=5

several processes, the same command on each:
  --distributed   on Cloud TPU, GKE and Slurm, which tell the processes of each other
  --coordinator   elsewhere: address of process 0, with a free port; --num_processes: how many there are;
                  --process_id: which one this is, from 0"""

_OVERRIDE = re.compile(r'--?(no)?config\.(?P<path>[^=]*)(=(?P<value>.*))?$', re.DOTALL)
# Modules that configs imported under another name.
_MOVED = {
  'dream_jax.default_config': 'dream_jax.config.default',
  'dream_jax.recipe': 'dream_jax.config.recipe',
  'dream_jax.data.missing': 'dream_jax.missingness.missing',
  'dream_jax.models.dream_objective': 'dream_jax.models.dream.losses',
}
_CONFIG = re.compile(r'--?config(=(?P<value>.*))?$', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Arguments:
  """What the command line asks for.

  Attributes:
    mode: one of MODES, or 'help'.
    config: the config with its overrides, locked; None where the mode needs none and none was given.
    workdir: folder of the run; '' where neither --workdir nor --config was given.
    cluster: how to find the other processes; None for a program of one process.
  """

  mode: str
  config: ConfigDict | None
  workdir: str
  cluster: Cluster | None = None


def parse(argv: Sequence[str]) -> Arguments:
  """The command line as Arguments.

  Args:
    argv: `sys.argv`: the program's name first.

  Raises:
    UserError: an unknown flag, mode, config, variant or field, or a value of the wrong type.
  """
  if any(a in ('-h', '--help', '-help', '--helpfull', '--helpshort') for a in argv[1:]):
    return Arguments('help', None, '')
  _check_characters(argv)
  name, rest = _take_config(argv)
  config = load_config(name) if name is not None else None
  values = flags.FlagValues()
  flags.DEFINE_enum('mode', 'train', MODES, 'what to do', flag_values=values)
  flags.DEFINE_string('workdir', '', 'folder of the run', flag_values=values)
  flags.DEFINE_bool('distributed', False, 'several processes that the cluster tells of each other', flag_values=values)
  flags.DEFINE_string('coordinator', None, 'address of process 0', flag_values=values)
  flags.DEFINE_integer('num_processes', None, 'how many processes there are', flag_values=values)
  flags.DEFINE_integer('process_id', None, 'which process this is', flag_values=values)
  _check_overrides(config, rest)
  rest = _last_of_each(config, rest)
  try:
    if config is not None:
      config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=list(rest))
    extra = values(list(rest))[1:]
  except flags.UnrecognizedFlagError as error:
    raise UserError(f'unknown flag --{error.flagname}; {did_you_mean(error.flagname, _flag_names())}') from error
  except (flags.Error, TypeError, ValueError, AttributeError, KeyError, RecursionError, MemoryError) as error:
    raise UserError(_explain(config, error)) from error
  if extra:
    hint = f'write --mode={extra[0]}' if extra[0] in MODES else 'every argument is a --flag=value'
    raise UserError(f'unexpected argument {extra[0]!r}; {hint}')
  mode, workdir = str(values['mode'].value), expanded(str(values['workdir'].value), '--workdir')
  if values['workdir'].present and not workdir:
    raise UserError('--workdir has no value; expected a folder, or leave it out for runs/NAME[-VARIANT]')
  if config is None and (mode in ('train', 'evaluate', 'study', 'plan') or (mode == 'report' and not workdir)):
    raise UserError(f'--mode={mode} needs --config=configs/NAME.py{_known_configs()}')
  return Arguments(mode, config, workdir or (default_workdir(name, mode) if name else ''), _cluster(values))


def _cluster(values: flags.FlagValues) -> Cluster | None:
  """What the flags say of other processes."""
  names = ('coordinator', 'num_processes', 'process_id')
  address, count, index = values['coordinator'].value, values['num_processes'].value, values['process_id'].value
  given = [name for name in names if values[name].value is not None]
  if not given:
    return Cluster() if values['distributed'].value else None
  if address is None or count is None or index is None:
    lacking = ', '.join(f'--{name}' for name in names if name not in given)
    raise UserError(f'--{given[0]} is given without {lacking}; expected all of --{", --".join(names)}')
  if not re.fullmatch(r'\S+:\d+', address):
    raise UserError(f'--coordinator={address} is no address; expected HOST:PORT of process 0, such as 10.0.0.2:8476')
  if count < 1:
    raise UserError(f'--num_processes={count}; expected at least 1')
  if not 0 <= index < count:
    raise UserError(f'--process_id={index}; expected 0 to {count - 1}, as --num_processes={count}')
  return Cluster(address, count, index)


def default_workdir(name: str, mode: str = 'train') -> str:
  """'runs/NAME' or 'runs/NAME-VARIANT' for a config string like 'configs/NAME.py:VARIANT'; a study has its own."""
  path, _, variant = name.partition(':')
  # A variant may hold anything; a folder's name should not.
  safe = re.sub(r'[^\w.,=+-]+', '_', variant)
  of_its_own = '-study' if mode == 'study' and Path(path).stem != 'study' else ''
  return os.path.join('runs', Path(path).stem + (f'-{safe}' if safe else '') + of_its_own)


def load_config(name: str) -> ConfigDict:
  """The ConfigDict of a config string, locked.

  Args:
    name: 'PATH.py' or 'PATH.py:VARIANT'; the variant goes to `get_config` as its argument.

  Raises:
    UserError: there is no such file, it does not run, it has no get_config, or get_config refuses the variant.
  """
  text, _, variant = name.partition(':')
  path = Path(expanded(text, '--config'))
  try:
    known = path.exists() and not path.is_dir()
  except OSError as error:
    raise UserError(f'--config={_short(text)} cannot be read ({error.strerror}); expected configs/NAME.py') from error
  if not known:
    raise UserError(_no_such_config(path, text))
  if path.suffix != '.py':
    raise UserError(f'--config={text} is not a Python file; expected a .py file with get_config()')
  try:
    spec = importlib.util.spec_from_file_location(f'dream_jax_config {path.resolve()}', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A config may define a model; dataclasses and digests look for the module of a class here.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    get_config = getattr(module, 'get_config', None)
    if not callable(get_config):
      raise UserError(f'{path} has no function get_config(); expected one that returns a ConfigDict')
    if variant and not inspect.signature(get_config).parameters:
      raise UserError(f'{path} has no variants; write --config={text} without :{variant}')
    config = get_config(variant) if variant else get_config()
  except UserError:
    raise
  except ModuleNotFoundError as error:
    new = _MOVED.get(error.name or '')
    hint = f'; it is {new} now' if new else ''
    raise UserError(f'{_place(path, error)}: {_one_line(error)}{hint}') from error
  except (Exception, SystemExit) as error:
    # The config is the user's own file: its faults are reported like any other wrong input, with the place.
    raise UserError(f'{_place(path, error)}: {type(error).__name__}: {_one_line(error)}') from error
  if not isinstance(config, ConfigDict):
    raise UserError(f'get_config() of {path} returns {type(config).__name__}; expected an ml_collections ConfigDict')
  return config.lock()


def _take_config(argv: Sequence[str]) -> tuple[str | None, list[str]]:
  """The value of --config (the last one wins, as for every flag) and the command line without it."""
  name, rest, arguments = None, [], iter(argv)
  for argument in arguments:
    match = _CONFIG.match(argument)
    if argument == '--':
      return name, [*rest, argument, *arguments]
    if not match:
      rest.append(argument)
      continue
    name = match['value'] if match['value'] is not None else next(arguments, '')
    if not name or name.startswith('--'):
      raise UserError(f'--config has no value; expected --config=configs/NAME.py[:VARIANT]{_known_configs()}')
  return name, rest


def _check_characters(argv: Sequence[str]) -> None:
  """Raises UserError for what no file and no log could hold."""
  for argument in argv[1:]:
    if any(c == '\0' or '\ud800' <= c <= '\udfff' for c in argument):
      raise UserError(f'argument {_short(repr(argument))} holds bytes that are no text; expected UTF-8')


def _check_overrides(config: ConfigDict | None, argv: Sequence[str]) -> None:
  for argument in argv[1:]:
    if re.match(r'--?(flagfile|undefok)(=|$)', argument):  # absl has them; they would pass what is checked here.
      raise UserError(f'unknown flag {argument.partition("=")[0]}; {did_you_mean("flagfile", _flag_names())}')
    match = _OVERRIDE.match(argument)
    if not match:
      continue
    if config is None:
      raise UserError(f'{argument} overrides a config, but there is no --config=configs/NAME.py{_known_configs()}')
    _check_path(config, match['path'])
    _check_tuple(config, match['path'], match['value'])


def _last_of_each(config: ConfigDict | None, argv: Sequence[str]) -> list[str]:
  """The command line with the last value of each field alone; of two tuples ml_collections would make a longer one."""
  kept: dict[Any, list[str]] = {}
  arguments = enumerate(argv)
  for index, argument in arguments:
    if argument == '--':
      return [*(part for parts in kept.values() for part in parts), *argv[index:]]
    match = _OVERRIDE.match(argument)
    parts = [argument]
    bare = match and match['value'] is None and not match[1]
    # Without '=' the value is the next argument, where the field is no switch.
    if match and bare and config_flags.GetType(match['path'], config) is not bool:
      parts += [value for _, value in itertools.islice(arguments, 1)]
    key = match['path'] if match else index
    kept.pop(key, None)
    kept[key] = parts
  return [part for parts in kept.values() for part in parts]


def _check_path(config: ConfigDict, path: str) -> None:
  """Raises UserError where no field has the dotted name `path`; looks for what was meant along the whole of it."""
  node: Any = config
  steps = path.split('.')
  for depth, step in enumerate(steps):
    parent = '.'.join(('config', *steps[:depth]))
    if not isinstance(node, ConfigDict):
      raise UserError(f'{parent}.{step} does not exist: {parent} holds {type(node).__name__}, not fields')
    if step not in node:
      fault = f'{parent}.{step} does not exist'
      raise UserError(f'{fault}; {_meant(config, path, parent, step, list(node))}')
    node = node[step]


def _check_tuple(config: ConfigDict, path: str, value: str | None) -> None:
  """ml_collections takes a tuple with a missing bracket for one string; nobody means that."""
  if config_flags.GetType(path, config) is not tuple or not value or value[0] not in '([':
    return
  try:
    ast.literal_eval(value)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    raise UserError(f'--config.{path}={_short(value)} cannot be read; expected {_type_name(tuple)}') from None


def _meant(config: ConfigDict, path: str, parent: str, step: str, here: list[str]) -> str:
  """What to say after 'does not exist': the whole dotted name where one is near, and what the level holds."""
  paths = list(_paths(config))
  siblings = near(step, here)
  rest = path.split(f'{step}.', 1)[1] if f'{step}.' in path else ''
  if siblings and rest:
    # The group is misspelt: does its leaf exist under the right name?
    group = f'{parent}.{siblings[0]}'
    leaf = f'{group}.{rest}'
    if leaf in paths:
      return f'did you mean {leaf}?'
    below = [p[len(group) + 1 :] for p in paths if p.startswith(f'{group}.')]
    if not below:
      return f'did you mean {group}?'
    close = near(rest, below)
    if close:
      return f'did you mean {" or ".join(f"{group}.{c}" for c in close)}?'
    return f'did you mean {group}? It has no {rest} either; {did_you_mean(rest, below, prefix=f"{group}.")}'
  if siblings:
    return f'did you mean {" or ".join(f"{parent}.{s}" for s in siblings)}?'
  # The same leaf elsewhere: --config.epochs for config.train.epochs.
  leaf = path.rsplit('.', 1)[-1]
  elsewhere = [p for p in paths if p.rsplit('.', 1)[-1] == leaf]
  if elsewhere:
    return f'did you mean {" or ".join(elsewhere[:3])}?'
  return did_you_mean(step, here, prefix=f'{parent}.')


def _paths(config: ConfigDict, prefix: str = 'config') -> list[str]:
  names = []
  for key in config:
    names.append(f'{prefix}.{key}')
    value = config[key]
    if isinstance(value, ConfigDict):
      names.extend(_paths(value, f'{prefix}.{key}'))
  return names


def _explain(config: ConfigDict | None, error: Exception) -> str:
  """absl's message about a bad value, with the type that was expected."""
  text = _one_line(error)
  match = re.match(r'flag --config\.(?P<path>[\w.]+)=(?P<value>.*?): ', text)
  if match and config is not None:
    kind = config_flags.GetType(match['path'], config)
    if isinstance(kind, type):
      shown = f'--config.{match["path"]}={_short(match["value"])}'
      whole = _whole_number(match['value']) if kind is int else None
      hint = '' if whole is None else f'; write {whole}'
      return f'{shown} is of the wrong type; expected {_type_name(kind)}{hint}'
  return text[0].lower() + text[1:] if text else type(error).__name__


def _whole_number(text: str) -> int | None:
  """What '1e3' or '5.0' stands for; None for anything else."""
  try:
    value = float(text)
  except ValueError:
    return None
  return int(value) if value.is_integer() and abs(value) < 1e15 else None


def _short(text: str) -> str:
  return text if len(text) <= 60 else text[:57] + '...'


def _type_name(kind: type) -> str:
  names = {
    ConfigDict: 'its fields one by one',
    int: 'a whole number',
    float: 'a number',
    bool: 'true or false',
    tuple: "a tuple such as \"('a', 'b')\"",
  }
  return names.get(kind, kind.__name__)


def _flag_names() -> list[str]:
  return ['config', 'workdir', 'mode', 'help', 'distributed', 'coordinator', 'num_processes', 'process_id']


def _no_such_config(path: Path, text: str) -> str:
  known = _config_files(path.parent) or _config_files(Path('configs'))
  stems = {Path(k).stem: k for k in known}
  names = [stems[s] for s in near(path.stem, stems)] or known
  what = 'is a folder' if path.is_dir() else 'does not exist'
  if not names:
    return f'--config={text} {what}; expected a .py file with get_config()'
  return f'--config={text} {what}; did you mean {" or ".join(names[:6])}?'


def _config_files(folder: Path) -> list[str]:
  return sorted(str(p) for p in folder.glob('*.py') if p.stem != '__init__') if folder.is_dir() else []


def _known_configs() -> str:
  files = _config_files(Path('configs'))
  return f'; there is {", ".join(files[:8])}' if files else ''


def _place(path: Path, error: BaseException) -> str:
  if isinstance(error, SyntaxError):
    return f'{path if Path(error.filename or path).name == path.name else error.filename} line {error.lineno}'
  lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.absolute()]
  return f'{path} line {lines[-1]}' if lines else str(path)


def _one_line(error: BaseException) -> str:
  return ' '.join(str(error).split())

"""The command line: values come out typed, and every mistake is one line on stderr with exit code 2."""

import errno
import subprocess
import sys
import types

import pytest

from dream_jax import main
from dream_jax.cli import flags
from dream_jax.errors import Preempted, UserError
from dream_jax.parallel.cluster import Cluster

_CONFIG = """
from ml_collections import ConfigDict, config_dict
from dream_jax.errors import UserError

def get_config(arg=''):
  if arg not in ('', 'runlocal'):
    raise UserError(f'unknown variant {arg!r}; known: runlocal')
  config = ConfigDict()
  config.seed = 0
  config.data = ConfigDict({'name': 'digits', 'dir': config_dict.placeholder(str)})
  config.optimizer = ConfigDict({'name': 'adamw', 'learning_rate': 1e-3, 'weight_decay': 0.1})
  config.train = ConfigDict({'epochs': 2 if arg else 30, 'shuffle': True})
  config.protocols = ('modality/zeros',)
  return config
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """A folder with configs/digits.py, which is the current one."""
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'digits.py').write_text(_CONFIG)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def _parse(*arguments):
  return flags.parse(['main', *arguments])


def test_overrides_are_typed_and_the_config_is_locked():
  got = _parse(
    '--config=configs/digits.py:runlocal',
    '--config.train.epochs=5',
    '--config.optimizer.learning_rate', '1',
    '--config.protocols=("a", "b")',
    '--noconfig.train.shuffle',
    '--config.data.dir=here',
  )  # fmt: skip
  assert got.mode == 'train'
  assert got.workdir == 'runs/digits-runlocal'
  config = got.config
  assert (config.train.epochs, config.train.shuffle, config.protocols) == (5, False, ('a', 'b'))
  assert (config.optimizer.learning_rate, config.data.dir, config.seed) == (1.0, 'here', 0)
  assert type(config.optimizer.learning_rate) is float
  for locked in (config, flags.load_config('configs/digits.py')):
    with pytest.raises(AttributeError):
      locked.new = 1


@pytest.mark.parametrize(
  ('given', 'field', 'value'),
  [
    (["--config.protocols=('a', 'b')", "--config.protocols=('c',)"], 'protocols', ('c',)),
    (["--config.protocols=('a',)", '--config.protocols', "('b', 'c')"], 'protocols', ('b', 'c')),
    (['--config.protocols', "('b',)", '--config.protocols=c'], 'protocols', ('c',)),
    (['--config.seed=1', '--config.protocols=a', '--config.seed', '2'], 'seed', 2),
    (['--config.data.dir=a', '--config.data.dir=b'], 'data.dir', 'b'),
    (['--config.train.shuffle=false', '--config.train.shuffle'], 'train.shuffle', True),
    (['--config.train.shuffle', '--noconfig.train.shuffle'], 'train.shuffle', False),
    (['--noconfig.train.shuffle', '--config.train.shuffle=true'], 'train.shuffle', True),
    (['--config.optimizer.learning_rate=1', '--config.optimizer.learning_rate=2.5'], 'optimizer.learning_rate', 2.5),
    (['--config.seed=1_000'], 'seed', 1000),
  ],
)
def test_the_last_value_of_a_field_wins(given, field, value):
  config = _parse('--config=configs/digits.py', *given).config
  for name in field.split('.'):
    config = config[name]
  assert config == value
  assert type(config) is type(value)


def test_home_folder_is_found_where_the_shell_did_not(folder, monkeypatch):
  monkeypatch.setenv('HOME', str(folder))
  (folder / 'mine.py').write_text(_CONFIG)
  got = _parse('--config=~/mine.py:runlocal', '--workdir=~/r')
  assert (got.workdir, got.config.train.epochs) == (f'{folder}/r', 2)
  assert _parse('--config=~/mine.py', '--workdir=gs://b/~').workdir == 'gs://b/~'
  with pytest.raises(UserError, match=r'--config=~/min.py does not exist; did you mean .*/mine.py\?'):
    _parse('--config=~/min.py')


def test_home_folder_that_is_not_there_is_no_folder_called_tilde(monkeypatch):
  for workdir in ('~nobody-of-this-name/r', '~nobody-of-this-name'):
    with pytest.raises(UserError, match=r'--workdir is ~nobody-of-this-name.*; there is no home folder'):
      _parse('--mode=report', f'--workdir={workdir}')
  monkeypatch.setenv('HOME', '')
  with pytest.raises(UserError, match='set the variable HOME'):
    _parse('--mode=report', '--workdir=~/r')


def test_workdir_and_mode():
  assert _parse('--mode=list') == flags.Arguments('list', None, '')
  assert _parse('--mode=report', '--workdir=w') == flags.Arguments('report', None, 'w')
  assert _parse('--config=configs/digits.py').workdir == 'runs/digits'
  assert flags.default_workdir('a/b.py:x/../y') == 'runs/b-x_.._y'
  assert _parse('--config=configs/digits.py', '--help').mode == 'help'


def test_other_processes_are_named_by_flags():
  config = '--config=configs/digits.py'
  assert _parse(config).cluster is None
  assert _parse(config, '--distributed').cluster == Cluster()
  explicit = ('--coordinator=10.0.0.2:8476', '--num_processes=4', '--process_id=3')
  assert _parse(config, *explicit).cluster == Cluster('10.0.0.2:8476', 4, 3)


@pytest.mark.parametrize(
  ('override', 'words'),
  [
    ('--config.optimiser.lr=1', ['config.optimiser does not exist', 'did you mean config.optimizer.learning_rate?']),
    ('--config.optimiser.weight_decay=1', ['did you mean config.optimizer.weight_decay?']),
    (
      '--config.optimiser.qqq=1',
      ['did you mean config.optimizer? It has no qqq either; known: config.optimizer.learning_rate'],
    ),
    ('--config.optimizer.wieght_decay=1', ['config.optimizer.wieght_decay', 'mean config.optimizer.weight_decay?']),
    ('--config.optimizer.qqq=1', ['known: config.optimizer.learning_rate, config.optimizer.name']),
    ('--config.epochs=1', ['did you mean config.train.epochs?']),
    ('--config.qqq=1', ['config.qqq does not exist; known: config.data, config.optimizer']),
    ('--noconfig.train.shufle', ['did you mean config.train.shuffle?']),
    ('--config.train.epochs.x=1', ['config.train.epochs holds int']),
    ('--config.train.epochs=abc', ['--config.train.epochs=abc', 'expected a whole number']),
    ('--config.train.epochs=0.5', ['expected a whole number']),
    ('--config.train.epochs=1e3', ['expected a whole number; write 1000']),
    ('--config.train.epochs=5.0', ['expected a whole number; write 5']),
    ('--config.train.epochs=', ['--config.train.epochs=', 'expected a whole number']),
    ('--config.train.epochs=' + '9' * 5000, ['999...', 'expected a whole number']),
    ('--config.protocols=' + '(' * 5000, ['cannot be read', 'expected a tuple']),
    ('--config.protocols=(' + '9' * 5000 + ',)', ['cannot be read', 'expected a tuple']),
    ('--config.data.dir=a\0b', ['holds bytes that are no text']),
    ('--workdir=a\udcffb', ['holds bytes that are no text']),
    ('--workdir=', ['--workdir has no value']),
    ('--flagfile=x', ['unknown flag --flagfile']),
    ('--undefok=x', ['unknown flag --undefok']),
    ('--config.train.shuffle=maybe', ['expected true or false']),
    ('--config.optimizer.learning_rate=fast', ['expected a number']),
    ('--config.protocols=("a"', ['expected a tuple']),
    ('--config.data=1', ['--config.data=1', 'fields one by one']),
    ('--config.seed', ['missing value', 'config.seed']),
    ('--mod=train', ['unknown flag --mod; did you mean mode?']),
    ('--mode=trian', ['--mode=trian', 'train|evaluate']),
    ('--coordinator=a:1', ['--coordinator is given without --num_processes, --process_id']),
    ('--process_id=0', ['--process_id is given without --coordinator, --num_processes']),
    ('train', ['write --mode=train']),
    ('extra', ["unexpected argument 'extra'"]),
  ],
)
def test_wrong_flag_is_one_line_that_names_the_near_thing(override, words, capsys):
  assert main.main(['main', '--config=configs/digits.py', override]) == 2
  out, err = capsys.readouterr()
  assert out == ''
  assert err.startswith('dream_jax: ')
  assert err.count('\n') == 1
  for word in words:
    assert word in err


@pytest.mark.parametrize(
  ('text', 'name', 'words'),
  [
    (None, 'configs/digit.py', ['configs/digit.py does not exist', 'did you mean configs/digits.py?']),
    (None, 'digits', ['did you mean configs/digits.py?']),
    (None, 'configs', ['is a folder', 'configs/digits.py']),
    (None, 'configs/digits.py:tiny', ["unknown variant 'tiny'", 'runlocal']),
    (None, '', ['--config has no value', 'configs/digits.py']),
    ('def get_config(:', 'configs/x.py', ['configs/x.py line 1: SyntaxError']),
    ('\nx = missing_name', 'configs/x.py', ['configs/x.py line 2: NameError', 'missing_name']),
    ('x = 1', 'configs/x.py', ['no function get_config()']),
    ('def get_config():\n  return {}', 'configs/x.py', ['returns dict; expected an ml_collections ConfigDict']),
    ('def get_config():\n  return 1 / 0', 'configs/x.py', ['configs/x.py line 2: ZeroDivisionError']),
    ('def get_config():\n  pass', 'configs/x.py:v', ['has no variants', 'without :v']),
    ('raise SystemExit(0)', 'configs/x.py', ['configs/x.py line 1: SystemExit']),
    ('def get_config():\n  return get_config()', 'configs/x.py', ['configs/x.py line 2: RecursionError']),
    (None, 'configs/' + 'x' * 300 + '.py', ['xxx...', 'cannot be read (File name too long)']),
    ('a: 1', 'configs/x.yaml', ['not a Python file']),
  ],
)
def test_config_that_does_not_load_is_one_line(folder, text, name, words, capsys):
  if text is not None:
    (folder / name.partition(':')[0]).write_text(text)
  assert main.main(['main', f'--config={name}']) == 2
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  for word in words:
    assert word in err


def test_mode_without_its_config_says_which_there_are(capsys):
  for arguments in ([], ['--mode=evaluate'], ['--mode=plan'], ['--mode=report'], ['--config.seed=1']):
    assert main.main(['main', *arguments]) == 2
    assert 'configs/digits.py' in capsys.readouterr().err


@pytest.fixture
def library(monkeypatch):
  """Stands in for the library below main; its calls are recorded, and `fault` is raised where one is set."""
  record = types.SimpleNamespace(calls=[], fault=None)

  def stand_in(module, name):
    def call(*arguments):
      record.calls.append((name, *arguments))
      if record.fault:
        raise record.fault

    parent, _, leaf = module.rpartition('.')
    fake = sys.modules.get(module) or types.ModuleType(module)
    monkeypatch.setitem(sys.modules, module, fake)
    __import__(parent)
    monkeypatch.setattr(sys.modules[parent], leaf, fake, raising=False)
    monkeypatch.setattr(fake, name, call, raising=False)

  for module, name in (
    ('dream_jax.experiments.experiment', 'train'),
    ('dream_jax.experiments.experiment', 'evaluate'),
    ('dream_jax.experiments.suite', 'study'),
    ('dream_jax.scaling.plan', 'plan'),
    ('dream_jax.report.text', 'show'),
    ('dream_jax.cli.listing', 'print_all'),
    ('dream_jax.cli.listing', 'print_fields'),
  ):
    stand_in(module, name)
  # It would change the signals and the JAX of this very process.
  monkeypatch.setattr(main, '_start', lambda arguments: record.calls.append(('start', arguments.mode)))
  return record


def test_every_mode_calls_its_part_of_the_library(library):
  config = _parse('--config=configs/digits.py').config
  for mode in flags.MODES:
    assert main.main(['main', '--config=configs/digits.py', '--workdir=w', f'--mode={mode}']) == 0
  started = [c[1] for c in library.calls if c[0] == 'start']
  assert started == ['train', 'evaluate', 'study']
  calls = [c for c in library.calls if c[0] != 'start']
  assert [c[0] for c in calls] == ['train', 'evaluate', 'study', 'plan', 'show', 'print_all', 'print_fields']
  for call in calls[:4]:
    assert call[1].to_dict() == config.to_dict()
    assert call[2] == 'w'
  assert calls[4][1:] == ('w',)
  assert calls[6][1].to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ('fault', 'words'),
  [
    (UserError('data.dir\nholds nothing'), ['data.dir holds nothing']),
    (OSError(errno.ENOSPC, 'No space left on device', 'runs/x'), ['No space left on device: runs/x']),
    (PermissionError(errno.EACCES, 'Permission denied', 'runs/x'), ['Permission denied: runs/x', '--workdir']),
    (OSError(errno.EROFS, 'Read-only file system'), ['Read-only file system']),
    (OSError(errno.ELOOP, 'Too many levels of symbolic links', 'a'), ['symbolic links: a; choose another --workdir']),
    (OSError(errno.ENAMETOOLONG, 'File name too long', 'a'), ['too long: a; choose another --workdir']),
    (NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'a/b'), ['a/b; choose another --workdir']),
    (OSError(errno.EIO, 'Input/output error', 'a'), ['check the disk or the mount']),
    (OSError(errno.ESTALE, 'Stale file handle', 'a'), ['check the disk or the mount']),
    (OSError(errno.EMFILE, 'Too many open files', 'a'), ['ulimit -n']),
    (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), ['set TMPDIR']),
    (MemoryError('Unable to allocate 7 TiB\nfor an array'), ['out of memory (Unable to allocate 7 TiB)', 'batch_size']),
    (RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99'), ['out of memory (RESOURCE_EX']),
  ],
)
def test_fault_of_the_user_is_one_line_and_two(library, fault, words, capsys):
  library.fault = fault
  assert main.main(['main', '--config=configs/digits.py']) == 2
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  for word in words:
    assert word in err


@pytest.mark.parametrize(
  'fault', [ValueError('ours'), FileNotFoundError(errno.ENOENT, 'gone'), RecursionError('of our own code')]
)
def test_fault_of_ours_keeps_its_traceback(library, fault):
  library.fault = fault
  with pytest.raises(type(fault)):
    main.main(['main', '--config=configs/digits.py'])


@pytest.mark.parametrize(
  ('given', 'words'),
  [
    (('here', 2, 0), ['--coordinator=here is no address; expected HOST:PORT']),
    (('here:1', 0, 0), ['--num_processes=0; expected at least 1']),
    (('here:1', 2, 2), ['--process_id=2; expected 0 to 1']),
    (('here:1', 2, -1), ['--process_id=-1; expected 0 to 1']),
  ],
)
def test_processes_that_cannot_be_are_refused(given, words, capsys):
  names = ('coordinator', 'num_processes', 'process_id')
  assert (
    main.main(['main', '--config=configs/digits.py', *(f'--{n}={v}' for n, v in zip(names, given, strict=True))]) == 2
  )
  err = capsys.readouterr().err
  for word in words:
    assert word in err


def test_stop_that_was_asked_for_is_no_failure(library, capsys):
  library.fault = Preempted('SIGTERM: dream saved at step 3 of 9')
  assert main.main(['main', '--config=configs/digits.py']) == 0
  assert capsys.readouterr().out == 'SIGTERM: dream saved at step 3 of 9; the same command continues where it stopped\n'


def test_interrupt_says_how_to_continue(library, capsys):
  library.fault = KeyboardInterrupt()
  assert main.main(['main', '--config=configs/digits.py']) == 130
  assert 'same command continues' in capsys.readouterr().err


def test_the_command_itself_exits_with_two(folder, root):
  command = [sys.executable, '-m', 'dream_jax.main', f'--config={folder}/configs/digits.py', '--config.optimiser.lr=1']
  done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'did you mean config.optimizer.learning_rate?' in done.stderr


def test_import_starts_no_device_and_loads_no_tensorflow(root):
  code = (
    'import sys, dream_jax, dream_jax.main\n'
    'dream_jax.UserError, dream_jax.DatasetSpec, dream_jax.ModalitySpec, dream_jax.__version__, dir(dream_jax)\n'
    'assert "jax" not in sys.modules, "jax is loaded"\n'
    'import dream_jax.workdir.checkpoints, dream_jax.workdir.metrics_log, dream_jax.settings\n'
    'loaded = [m for m in ("tensorflow", "tensorflow_datasets", "matplotlib") if m in sys.modules]\n'
    'assert not loaded, loaded\n'
    'from jax._src import xla_bridge\n'
    'assert not xla_bridge._backends, "a device was started"\n'
    'try:\n  dream_jax.nothing\nexcept AttributeError:\n  pass\nelse:\n  raise SystemExit("found nothing")\n'
  )
  done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


def test_a_config_that_imports_a_former_name_is_told_the_new_one(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('from dream_jax.default_config import get_default\nget_config = get_default\n')
  with pytest.raises(UserError, match=r'mine\.py line 1.*it is dream_jax\.config\.default now'):
    flags.parse(['main', f'--config={path}'])

"""The boundary of every command: what it prints anywhere, and who is told what when something goes wrong."""

import json
import os
import subprocess
import sys
import tomllib

import pytest

from dream_jax.errors import Diverged, UserError
from dream_jax.machine import exit_codes

_SAYS = """
import sys
from dream_jax.machine import exit_codes
def say(): print('53.1 \\xb1 0.4, 3\\u20135, \\u2206, \\u4e2d, \\udcff'); print('\\xb1', file=sys.stderr)
sys.exit(exit_codes.exit_code(say, writes_to='--workdir'))
"""


def _run(code, root, **options):
  return subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, check=False, **options)


@pytest.mark.parametrize(
  ('environ', 'out'),
  [
    ({'PYTHONIOENCODING': 'ascii'}, b'53.1 +- 0.4, 3-5, d, \\u4e2d, \\udcff\n'),
    ({'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}, b'53.1 +- 0.4, 3-5, d, \\u4e2d, \\udcff\n'),
    ({'PYTHONIOENCODING': 'latin-1'}, b'53.1 \xb1 0.4, 3-5, d, \\u4e2d, \\udcff\n'),
    ({'PYTHONIOENCODING': 'utf-8'}, '53.1 ± 0.4, 3–5, \u2206, \u4e2d, \\udcff\n'.encode()),
  ],
)
def test_signs_that_a_terminal_lacks_are_replaced(environ, out, root):
  done = _run(_SAYS, root, env=os.environ | environ)
  assert (done.returncode, done.stdout) == (0, out), done.stderr


@pytest.mark.parametrize('lines', [1, 100_000])
def test_output_that_nobody_reads_ends_quietly(lines, root):
  code = (
    'import sys; from dream_jax.machine import exit_codes\n'
    f'sys.exit(exit_codes.exit_code(lambda: [print("x" * 99) for _ in range({lines})], writes_to="--workdir"))\n'
  )
  read, write = os.pipe()
  os.close(read)
  with os.fdopen(write, 'wb') as nobody:
    done = subprocess.run([sys.executable, '-c', code], cwd=root, stdout=nobody, stderr=subprocess.PIPE, check=False)
  assert (done.returncode, done.stderr) == (141, b'')


@pytest.mark.parametrize('kind', [UserError, Diverged])
def test_a_refusal_is_one_line_that_keeps_the_names_of_files(kind, capsys):
  def refuse():
    raise kind('a  b/x.npz cannot be read (one\n  two\r\n\nthree\u2028four); mend it')

  expected = 'a  b/x.npz cannot be read (one two three four); mend it'
  with pytest.raises(kind) as caught:
    refuse()
  assert caught.value.args == (expected,)
  assert exit_codes.exit_code(refuse, writes_to='--workdir') == 2
  assert capsys.readouterr().err == f'dream_jax: {expected}\n'


def test_no_output_at_all_is_no_mistake(monkeypatch):
  monkeypatch.setattr(sys, 'stdout', None)
  assert exit_codes.exit_code(lambda: print('x'), writes_to='--workdir') == 0


def test_current_folder_that_is_gone_is_told(tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'gone'
  folder.mkdir()
  monkeypatch.chdir(folder)
  folder.rmdir()
  assert exit_codes.exit_code(lambda: pytest.fail('was run'), writes_to='--workdir') == 2
  assert 'the current folder does not exist any more' in capsys.readouterr().err
  os.chdir(tmp_path)


@pytest.mark.parametrize(
  'read', [lambda: json.loads('[' * 100_000), lambda: tomllib.loads('a = ' + '[' * 100_000)], ids=['json', 'toml']
)
def test_input_that_is_nested_too_deeply_is_told(read, capsys):
  assert exit_codes.exit_code(read, writes_to='--workdir') == 2
  assert 'nested too deeply' in capsys.readouterr().err


def test_endless_recursion_of_ours_keeps_its_traceback():
  def endless():
    endless()

  with pytest.raises(RecursionError):
    exit_codes.exit_code(endless, writes_to='--workdir')

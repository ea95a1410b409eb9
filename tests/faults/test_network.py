"""The default job asks nobody: whatever it needs is on this machine."""

import ctypes
import os
import socket
import sys
from pathlib import Path

import pytest

from faults import server

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET.
_ASKS = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.bind', 'socket.sendto')


def without_network(argv: list[str], seen: str) -> None:
  """A command; what it asks of the network is refused and written down. Not even this machine's own addresses are
  there; only sockets that are files pass."""

  def note(event: str, args: tuple) -> None:
    if event in _ASKS and not (isinstance(args[0], socket.socket) and args[0].family == socket.AF_UNIX):
      _write(seen, f'{event} {args[1:]}')
      raise PermissionError(f'{event} {args[1:]}')

  # Libraries that are no Python ask the kernel, which counts, in a network that nobody else is in.
  alone = ctypes.CDLL(None).unshare(_NEW_NETWORK) == 0
  sys.addaudithook(note)
  try:
    server.command(argv)
  finally:
    counts = _counts() if alone else {}
    for name in ('Ip OutRequests', 'Ip OutNoRoutes', 'Tcp ActiveOpens', 'Udp OutDatagrams'):
      if counts.get(name):
        _write(seen, f'{name}: {counts[name]}')


def _write(path: str, line: str) -> None:
  with open(path, 'a') as file:
    file.write(f'{line}\n')


def _counts() -> dict[str, int]:
  """What the kernel counts in this network."""
  lines = [line.split() for line in Path('/proc/self/net/snmp').read_text().splitlines()]
  found = {}
  for names, values in zip(lines[::2], lines[1::2], strict=True):
    found |= {f'{names[0][:-1]} {n}': int(v) for n, v in zip(names[1:], values[1:], strict=True)}
  return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel that counts is Linux')
def test_the_default_job_opens_no_connection(tmp_path):
  argv = [
    '--config=configs/digits.py:quick',
    '--config.num_seeds=1',
    '--config.train.epochs=1',
    '--config.train.num_evals=1',
    '--config.train.validation_draws=1',
    '--config.model.width=8',
    '--config.model.hidden=8',
    "--config.controls=('majority',)",
    "--config.protocols=('modality/noise',)",
    f'--config.data.tfds_dir={tmp_path / "tfds"}',
    f'--workdir={tmp_path / "run"}',
  ]
  if os.environ.get('DREAM_TEST_PLATFORM', 'cpu') != 'cpu':
    pytest.skip('accelerators of some machines are asked over the network')
  seen = tmp_path / 'seen'
  child = server.Child(without_network, argv, str(seen), output=tmp_path / 'said')
  assert child.wait(500) == 0, child.text[-2000:]
  assert not seen.exists(), seen.read_text()

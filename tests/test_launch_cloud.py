"""Launchers that reach for other machines, against stubs of their tools: TPU VMs, GPU machines and GKE."""

import os
import signal
import subprocess
import time

import pytest
from launch_world import ARGUMENTS, GKE, GPU, LONG, LONG_ONCE, SLICE, TPU, World, until


@pytest.fixture
def world(tmp_path, root):
  return World(tmp_path / 'world', root)


# --- Cloud TPU ---


def test_tpu_from_nothing_to_the_end(world):
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--create-flag=--network=my net', '--', *ARGUMENTS)
  assert process.returncode == 0, process.stderr
  assert process.stdout.splitlines() == [*_started(process.stdout), 'training', 'done']
  assert world.ran() == list(ARGUMENTS)
  (create,) = world.calls('tpu-vm create')
  assert create == [
    *('gcloud', 'compute', 'tpus', 'tpu-vm', 'create', 'dream', '--version=tpu-ubuntu2204-base'),
    *('--zone=us-central2-b', '--accelerator-type=v4-8', '--network=my net', '--quiet'),
  ]
  assert '-m pip install --quiet --disable-pip-version-check -c constraints.txt .[demo,tpu]' in world.remote_calls()
  tree = world.folder / 'host0' / 'dream_launch' / 'dream' / 'tree'
  assert (tree / 'dream_jax' / 'main.py').exists()
  assert (tree / 'runs').resolve() == tree.parent / 'runs'
  assert not (tree / '.git').exists()
  # A second run uses what is there.
  assert world.launch('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS).returncode == 0
  assert len(world.calls('create')) == 1
  assert len(world.calls('scp')) == 1


def _started(output: str) -> list[str]:
  """The lines of remote.sh itself."""
  return [line for line in output.splitlines() if line.startswith('# ')]


def test_slice_runs_the_same_on_every_host_with_the_bucket_as_its_workdir(tmp_path, root):
  world = World(tmp_path / 'world', root, hosts=2)
  world.write('vm', 'READY')
  process = world.launch('tpu_vm.sh', 'run', *SLICE, '--type=v4-8', '--hosts=2', '--', *ARGUMENTS)
  assert process.returncode == 0, process.stderr
  assert [world.ran(i) for i in (0, 1)] == [['--distributed', *ARGUMENTS]] * 2
  mounts = [line for line in world.remote_calls().splitlines() if line.startswith('gcsfuse')]
  assert [m.split()[-3:] for m in mounts] == [
    ['--only-dir=of/mine', 'results', f'{world.folder}/host{i}/dream_launch/dream/runs'] for i in (0, 1)
  ]
  assert '--rename-dir-limit=200000' in mounts[0]
  fetched = world.launch('tpu_vm.sh', 'fetch', *SLICE, '--run=digits')
  assert fetched.returncode == 0, fetched.stderr
  (rsync,) = world.calls('storage rsync')
  assert rsync[-2:] == ['gs://results/of/mine/digits', 'runs/fetched/dream']


def test_tpu_that_is_there_is_used_unless_it_is_another(world):
  world.write('vm', 'READY')
  assert world.launch('tpu_vm.sh', 'create', *TPU).returncode == 0
  process = world.launch('tpu_vm.sh', 'create', '--name=dream', '--zone=z', '--type=v5p-8')
  assert process.returncode == 2
  assert 'there is a TPU dream already, a v4-8 and no v5p-8' in process.stderr
  assert world.calls(' create ') == []


def test_tpu_that_someone_else_creates_at_the_same_time_is_used(world):
  world.faults({'words': ['tpu-vm create'], 'code': 1, 'err': 'ERROR: ALREADY_EXISTS', 'vm': 'READY'})
  assert world.launch('tpu_vm.sh', 'create', *TPU).returncode == 0


def test_no_quota_is_told_with_what_helps(world):
  world.faults(
    {'words': ['tpu-vm create'], 'code': 1, 'err': 'WARNING: x\nERROR: Quota TPUV4 exceeded in us-central2-b\n'}
  )
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)
  assert process.returncode == 1
  assert '# gcloud: ERROR: Quota TPUV4 exceeded' in process.stderr
  assert 'ask for more quota' in process.stderr
  assert len(world.calls('create')) == 1
  assert world.calls('ssh') == []


def test_preempted_tpu_is_made_anew_and_the_run_continues(world):
  world.behave(LONG_ONCE)
  world.faults({'words': ['remote.sh follow'], 'code': 255, 'vm': 'PREEMPTED', 'wipe': True})
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--spot', '--bucket=gs://b', '--', *ARGUMENTS)
  assert process.returncode == 0, process.stderr
  assert 'the machine was taken away' in process.stderr
  assert process.stdout.splitlines()[-1] == 'continued'
  assert world.ran() == list(ARGUMENTS)
  words = [' '.join(c[3:5]) for c in world.calls('gcloud') if c[4] in ('create', 'delete')]
  assert words == ['tpu-vm create', 'tpu-vm delete', 'tpu-vm create']
  assert all('--spot' in call for call in world.calls(' create '))


def test_run_that_saves_before_its_tpu_disappears_is_continued(world):
  # SIGTERM comes before the end: the run ends with 0, as one that is done.
  world.behave(LONG_ONCE)
  process = world.start('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)
  pid = world.folder / 'host0' / 'dream_launch' / 'dream' / 'job' / 'pid'
  until(lambda: pid.exists() and (world.folder / 'second').exists())
  time.sleep(0.1)
  os.killpg(int(pid.read_text().split()[0]), signal.SIGTERM)
  output = process.communicate(timeout=240)[0]
  assert process.returncode == 0, output
  assert 'saved' in output
  assert output.index('taken away or restarted') < output.index('continued')


def test_attempts_have_a_limit(world):
  world.behave(LONG)
  world.faults({'words': ['remote.sh follow'], 'times': 9, 'code': 255, 'vm': 'PREEMPTED', 'wipe': True})
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--attempts=2', '--', *ARGUMENTS)
  assert process.returncode == 1
  assert 'given up after 2 attempts' in process.stderr
  assert len(world.calls('tpu-vm create')) == 2


def test_recreating_waits_for_capacity(world):
  world.behave(LONG_ONCE)
  world.faults(
    {'words': ['remote.sh follow'], 'code': 255, 'vm': 'GONE', 'wipe': True},
    {'words': ['tpu-vm create'], 'skip': 1, 'times': 2, 'code': 1, 'err': 'ERROR: no more capacity in the zone'},
  )
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)
  output = process.stdout + process.stderr
  assert process.returncode == 0, output
  assert output.count('try another zone') == 2
  assert len(world.calls('tpu-vm create')) == 4


def test_crash_is_not_started_again_and_wrong_input_keeps_its_code(world):
  world.behave('echo "dream_jax: no such field" >&2; exit 2')
  process = world.launch('tpu_vm.sh', 'all', *TPU, '--', *ARGUMENTS)
  assert process.returncode == 2
  assert 'dream_jax: no such field' in process.stdout
  assert len(world.calls('remote.sh start')) == 1
  assert 'it goes on costing until: tpu_vm.sh delete --name=dream --zone=us-central2-b' in process.stderr
  assert world.calls('delete') == []


def test_one_failing_host_fails_the_run(tmp_path, root):
  world = World(tmp_path / 'world', root, hosts=2)
  world.write('vm', 'READY')
  world.behave('case $HOME in *host1) exit 1 ;; esac')
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--hosts=2', '--bucket=gs://b', '--', *ARGUMENTS)
  assert process.returncode == 1
  assert 'the run ended with exit code 1' in process.stderr


def test_dropped_connections_are_made_again(world):
  words = ('test -e', 'remote.sh start', 'remote.sh state', 'setup demo')
  world.faults(*({'words': [word], 'code': 255} for word in words), {'words': ['tpu-vm scp'], 'code': 1})
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)
  assert process.returncode == 0, process.stderr
  assert process.stdout.count('training') == 1
  assert process.stderr.count('trying again') == 3
  assert len(list(world.folder.glob('used_*'))) == 5


def test_log_goes_on_where_the_connection_was_cut(world):
  world.behave('echo training; until [ -e "$WORLD/go" ]; do sleep 0.1; done; echo done')
  process = world.start('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)

  def followers() -> list[str]:
    command = ['pgrep', '-f', f'tail -c .*{world.folder}']
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split()

  until(followers)
  time.sleep(0.3)
  for pid in followers():
    os.kill(int(pid), signal.SIGKILL)
  until(lambda: len(world.calls('remote.sh follow')) >= 2)
  world.write('go', '')
  output = process.communicate(timeout=240)[0]
  assert process.returncode == 0, output
  assert (output.count('training'), output.count('done')) == (1, 1)
  assert world.calls(f'remote.sh follow {len("training") + 1}')


def test_run_again_watches_the_run_that_goes_on_and_refuses_another(world):
  world.behave(LONG)
  first = world.start('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)
  until(lambda: b'training' in os.read(first.stdout.fileno(), 4096))
  os.killpg(first.pid, signal.SIGINT)  # Ctrl-C.
  first.communicate(timeout=240)
  assert first.returncode != 0
  other = world.launch('tpu_vm.sh', 'run', *TPU, '--', '--config=other.py')
  assert other.returncode == 1
  assert 'another run goes on here' in other.stderr
  assert 'a run goes on here' in world.launch('tpu_vm.sh', 'setup', *TPU).stderr
  second = world.start('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)
  until(lambda: len(world.calls('remote.sh follow')) >= 2)
  assert 'dream-state running' in world.launch('tpu_vm.sh', 'status', *TPU).stdout
  assert world.launch('tpu_vm.sh', 'stop', *TPU).returncode == 0
  output = second.communicate(timeout=240)[0]
  assert second.returncode == 75
  assert 'the run goes on already' in output
  assert 'saved' in output
  assert 'stopped as asked' in output


def test_queued_tpu_is_waited_for_and_requested_again_after_preemption(world):
  world.behave(LONG_ONCE)
  world.faults({'words': ['remote.sh follow'], 'code': 255, 'vm': 'GONE', 'queue': 'SUSPENDED', 'wipe': True})
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--queued', '--spot', '--bucket=gs://b', '--', *ARGUMENTS)
  assert process.returncode == 0, process.stderr
  assert 'request dream: WAITING_FOR_RESOURCES' in process.stderr
  creates = world.calls('queued-resources create')
  assert len(creates) == 2
  assert {'--node-id=dream', '--runtime-version=tpu-ubuntu2204-base', '--spot'} < set(creates[0])
  (delete,) = world.calls('queued-resources delete')
  assert '--force' in delete
  assert world.calls('tpu-vm create') == []


def test_delete_finds_out_how_the_tpu_was_made(world):
  world.write('vm', 'READY')
  world.write('queue', 'ACTIVE')
  assert world.launch('tpu_vm.sh', 'delete', *TPU).returncode == 0
  assert [c[3:5] for c in world.calls(' delete ')] == [['queued-resources', 'delete']]
  world.write('vm', 'READY')
  assert world.launch('tpu_vm.sh', 'delete', *TPU).returncode == 0
  assert [c[3:5] for c in world.calls(' delete ')][1:] == [['tpu-vm', 'delete']]
  world.write('vm', 'READY')
  world.faults({'words': ['tpu-vm delete'], 'code': 1})
  failed = world.launch('tpu_vm.sh', 'delete', *TPU)
  assert failed.returncode == 1
  assert 'GOES ON COSTING' in failed.stderr


def test_network_fault_here_is_not_taken_for_a_missing_tpu(world):
  world.faults({'words': ['tpu-vm describe'], 'code': 1, 'err': 'ERROR: could not reach the server'})
  process = world.launch('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS)
  assert process.returncode == 1
  assert 'could not reach the server' in process.stderr
  assert world.calls('create') == []


def test_fetch_brings_results_without_compiled_programs(world):
  world.write('vm', 'READY')
  world.behave('mkdir -p runs/digits/xla_cache; echo 1 >runs/digits/results.json; echo 2 >runs/digits/xla_cache/x')
  assert world.launch('tpu_vm.sh', 'run', *TPU, '--', *ARGUMENTS).returncode == 0
  process = world.launch('tpu_vm.sh', 'fetch', *TPU, '--to=here')
  assert process.returncode == 0, process.stderr
  files = sorted(str(p.relative_to(world.folder / 'here')) for p in (world.folder / 'here').rglob('*') if p.is_file())
  assert files == ['digits/results.json']
  wrong = world.launch('tpu_vm.sh', 'fetch', *TPU, '--run=nothing')
  assert wrong.returncode == 1
  assert 'there is: digits' in wrong.stderr


# --- GPU ---


def test_gpu_host_from_nothing_to_the_end(world):
  process = world.launch('gpu_vm.sh', 'all', '--host=me@there', '--', *ARGUMENTS)
  assert process.returncode == 0, process.stderr
  assert world.ran() == list(ARGUMENTS)
  assert '.[demo,cuda12]' in world.remote_calls()
  assert {c[0] for c in world.calls()} == {'ssh', 'scp'}
  assert {c[-2] for c in world.calls() if c[0] == 'ssh'} == {'me@there'}


@pytest.mark.parametrize(('driver', 'reason'), [('470.1', 'CUDA 12 needs 525'), ('', 'has no NVIDIA driver')])
def test_driver_that_does_not_do_is_told(world, driver, reason):
  world.write('driver', driver)
  if not driver:
    (world.folder / 'remote_bin' / 'nvidia-smi').write_text('#!/bin/sh\nexit 1\n')
  process = world.launch('gpu_vm.sh', 'setup', '--host=me@there')
  assert process.returncode == 1
  assert reason in process.stderr
  assert 'pip' not in world.remote_calls()


def test_gpu_vm_that_is_taken_away_is_started_again(world):
  world.behave(LONG_ONCE)
  job = world.folder / 'host0' / 'dream_launch' / 'dream' / 'job'
  process = world.start('gpu_vm.sh', 'run', *GPU, '--spot', '--', *ARGUMENTS)
  until(lambda: (world.folder / 'second').exists())
  world.write('vm', 'TERMINATED')
  os.killpg(int((job / 'pid').read_text().split()[0]), signal.SIGKILL)
  output = process.communicate(timeout=240)[0]
  assert process.returncode == 0, output
  assert output.splitlines()[-2:] == ['continued', '# finished']
  assert [c[3] for c in world.calls('instances') if c[3] in ('create', 'start')] == ['create', 'start']
  (create,) = world.calls('instances create')
  assert {'--maintenance-policy=TERMINATE', '--provisioning-model=SPOT', '--machine-type=g2-standard-8'} < set(create)
  # Its disk stayed: nothing is copied again.
  assert len(world.calls('compute scp')) == 1


# --- GKE ---


def test_jobset_is_valid_and_carries_everything(world):
  yaml = pytest.importorskip('yaml', reason='PyYAML reads the manifest')
  process = world.launch('gke.sh', 'run', *GKE, '--', *ARGUMENTS)
  assert process.returncode == 0, process.stderr
  assert world.calls() == [['kubectl', 'apply', '-f', '-']]
  jobset = yaml.safe_load((world.folder / 'stdin').read_text())
  assert (jobset['apiVersion'], jobset['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  assert jobset['metadata']['name'] == 'dream'
  assert jobset['spec']['failurePolicy']['maxRestarts'] == 20
  assert jobset['spec']['network'] == {'enableDNSHostnames': True, 'subdomain': 'dream'}
  (replicated,) = jobset['spec']['replicatedJobs']
  job = replicated['template']['spec']
  assert (job['parallelism'], job['completions'], job['completionMode'], job['backoffLimit']) == (4, 4, 'Indexed', 0)
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['onExitCodes']['values'] == [2]
  pod = job['template']['spec']
  assert job['template']['metadata']['annotations'] == {'gke-gcsfuse/volumes': 'true'}
  assert pod['restartPolicy'] == 'Never'
  assert pod['terminationGracePeriodSeconds'] >= 60
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
    'cloud.google.com/gke-tpu-topology': '4x4',
  }
  (container,) = pod['containers']
  assert container['command'] == ['bash', 'launch/container.sh']
  assert container['resources']['limits'] == {'google.com/tpu': 4} == container['resources']['requests']
  # Kubernetes makes $ of $$, and would expand $(NAME).
  assert container['args'] == ['--distributed', *(a.replace('$', '$$') for a in ARGUMENTS)]
  (volume,) = pod['volumes']
  assert volume['csi']['driver'] == 'gcsfuse.csi.storage.gke.io'
  attributes = volume['csi']['volumeAttributes']
  assert attributes['bucketName'] == 'b'
  assert 'only-dir=x' in attributes['mountOptions'].split(',')
  (mount,) = container['volumeMounts']
  assert (mount['name'], mount['mountPath']) == (volume['name'], '/app/runs')


def test_template_of_the_jobset_is_yaml_and_every_blank_is_filled(world, root):
  yaml = pytest.importorskip('yaml', reason='PyYAML reads the template')
  template = (root / 'launch' / 'gke_jobset.yaml').read_text()
  assert yaml.safe_load(template)['kind'] == 'JobSet'
  printed = world.launch('gke.sh', 'run', *GKE, '--dry-run', '--', '--config=a').stdout
  assert printed.splitlines()[0] == "kubectl apply -f - <<'MANIFEST'"
  assert '${' not in printed


def test_slice_of_one_host_runs_alone(world):
  yaml = pytest.importorskip('yaml', reason='PyYAML reads the manifest')
  world.launch('gke.sh', 'run', *GKE, '--topology=1x1', '--', '--config=a')
  job = yaml.safe_load((world.folder / 'stdin').read_text())['spec']['replicatedJobs'][0]['template']['spec']
  container = job['template']['spec']['containers'][0]
  assert (job['parallelism'], container['resources']['limits']) == (1, {'google.com/tpu': 1})
  assert container['args'] == ['--config=a']


# --- the other end ---


def test_python_is_fetched_where_the_machine_has_none_that_will_do(world):
  # Ubuntu 22.04 has Python 3.10.
  old = world.folder / 'remote_bin' / 'python3'
  old.write_text(
    '#!/bin/sh\n'
    'case "$1 $2 $3" in\n'
    '  -c*) exit 1 ;;\n'
    '  "-m uv venv") shift 5; mkdir -p "$2/bin"; cp "$WORLD/remote_bin/python" "$2/bin/python" ;;\n'
    'esac\n'
    'echo "python3 $*" >>"$WORLD/remote_calls"\n'
  )
  old.chmod(0o755)
  (world.folder / 'remote_bin' / 'python3.11').rename(world.folder / 'remote_bin' / 'python')
  for name in ('python3.12', 'python3.13', 'python3.11'):
    (world.folder / 'remote_bin' / name).symlink_to(old)
  world.write('vm', 'READY')
  process = world.launch('tpu_vm.sh', 'setup', *TPU)
  assert process.returncode == 0, process.stderr
  assert '-m pip install --quiet --user --upgrade uv' in world.remote_calls()
  assert '.[demo,tpu]' in world.remote_calls()

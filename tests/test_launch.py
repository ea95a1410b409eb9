"""The Slurm launcher is a plain script too: what it is given reaches the command line unchanged."""

import os
import subprocess

import pytest

_ARGUMENTS = ['--config=configs/digits.py', "--config.controls=('late+dropout', 'majority')", '--workdir=a folder/run']


@pytest.fixture
def script(root):
  return root / 'launch' / 'slurm.sbatch'


@pytest.fixture
def launch(script, tmp_path):
  """Runs the launcher in an empty folder with an interpreter that only says how it was called."""
  stub = tmp_path / 'stub python'
  stub.write_text('#!/usr/bin/env bash\npwd -P\nprintf "%s\\n" "$@"\nexit 7\n')
  stub.chmod(0o755)

  def run(**variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith('SLURM_')}
    process = subprocess.run(
      ['bash', str(script), *_ARGUMENTS],
      env={**environment, 'DREAM_PYTHON': str(stub), **variables},
      cwd=tmp_path,
      capture_output=True,
      text=True,
      timeout=60,
    )
    assert process.stderr == ''
    assert process.returncode == 7  # Slurm requeues and reports by this.
    return process.stdout.splitlines()

  return run


def test_launcher_is_valid_bash(script):
  process = subprocess.run(['bash', '-n', str(script)], capture_output=True, text=True, timeout=60)
  assert (process.returncode, process.stderr) == (0, '')


def test_launcher_passes_its_arguments_from_the_root_of_the_repository(launch, root):
  assert launch() == [str(root.resolve()), '-m', 'dream_jax.main', *_ARGUMENTS]


def test_launcher_runs_where_the_job_was_submitted(launch, tmp_path):
  # Slurm runs a copy of the script from its spool folder, whose parent is not the repository.
  folder = tmp_path / 'submitted'
  folder.mkdir()
  assert launch(SLURM_SUBMIT_DIR=str(folder))[0] == str(folder.resolve())

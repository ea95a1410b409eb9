"""What CI installs is what the README pins, and every file of it has a hash."""

import re

_PIN = re.compile(r'^([\w.-]+)==([^\s;]+)( *;[^\\\n]*)?', re.MULTILINE)
_BUILDS = {'setuptools', 'wheel'}  # They build the project.


def _pins(text: str) -> set[tuple[str, str, str]]:
  """(package, version, for which Python and system)."""
  return {
    (re.sub(r'[._]', '-', name).lower(), version, where.strip(' ;')) for name, version, where in _PIN.findall(text)
  }


def test_ci_installs_the_versions_that_are_pinned(root):
  constraints, locked = (_pins((root / name).read_text()) for name in ('constraints.txt', '.ci/locked.txt'))
  assert len(locked) > 100
  free = {pin for pin in locked - constraints if pin[0] not in _BUILDS}
  assert not free, f'run .ci/lock: {free}'


def test_newer_pythons_get_a_newer_jax(root):
  found = {where: version for name, version, where in _pins((root / 'constraints.txt').read_text()) if name == 'jax'}
  old, new = found["python_full_version < '3.12'"], found["python_full_version >= '3.12'"]
  assert [int(part) for part in old.split('.')] < [int(part) for part in new.split('.')]


def test_every_pin_has_a_hash(root):
  text = (root / '.ci/locked.txt').read_text()
  blocks = re.split(r'\n(?=[A-Za-z0-9])', text)
  bare = [block.splitlines()[0] for block in blocks if '==' in block and '--hash=sha256:' not in block]
  assert not bare

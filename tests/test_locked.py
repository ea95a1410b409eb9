"""What CI installs is what the README pins, and every file of it has a hash."""

import re

_PIN = re.compile(r'^([\w.-]+)==([^\s;]+)', re.MULTILINE)
_BUILDS = {'setuptools', 'wheel'}  # They build the project, and pip freeze leaves them out.


def _pins(text: str) -> dict[str, str]:
  return {re.sub(r'[._]', '-', name).lower(): version for name, version in _PIN.findall(text)}


def test_ci_installs_the_versions_that_are_pinned(root):
  constraints, locked = (_pins((root / name).read_text()) for name in ('constraints.txt', '.ci/locked.txt'))
  assert len(locked) > 100
  free = {name: version for name, version in locked.items() if constraints.get(name) != version}
  assert free.keys() <= _BUILDS, f'run .ci/lock: {free}'


def test_every_pin_has_a_hash(root):
  text = (root / '.ci/locked.txt').read_text()
  blocks = re.split(r'\n(?=[A-Za-z0-9])', text)
  bare = [block.splitlines()[0] for block in blocks if '==' in block and '--hash=sha256:' not in block]
  assert not bare

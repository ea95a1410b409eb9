r"""The rooms of the package, and which of them may know which.

  python tests/house.py          # files, lines and arrows, room by room

A room is a folder of `dream_jax`, or a loose file in its root. An arrow is an import. It goes down: a room knows only
rooms of lower floors.
"""

import ast
import collections
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'dream_jax'
# From the ground up.
FLOORS = (
  ('errors',),
  ('spec',),
  ('machine', 'parallel'),
  ('settings',),
  ('missingness',),
  ('data', 'models'),
  ('config', 'evaluation'),
  ('workdir',),
  ('report', 'training'),
  ('datacheck', 'experiments', 'scaling'),
  ('api', 'cli'),
  ('estimator',),
  ('__init__', 'main'),
)


def modules() -> dict[str, Path]:
  """Every module by its dotted name."""
  return {'.'.join(path.relative_to(ROOT).with_suffix('').parts): path for path in sorted(PACKAGE.rglob('*.py'))}


def imports(path: Path) -> set[str]:
  """The modules of this package that a file imports, wherever in it."""
  known, found = modules(), set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and node.module:
      names = [f'{node.module}.{alias.name}' for alias in node.names] + [node.module]
    elif isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    else:
      continue
    found.update(name for name in names if name in known)
  return found


def room(module: str) -> str:
  """The room of a module: `dream_jax.data.prepare` is in `data`."""
  return module.split('.')[1]


def arrows() -> dict[tuple[str, str], list[str]]:
  """(from room, to room) -> the imports, as 'module -> module'."""
  found = collections.defaultdict(list)
  for name, path in modules().items():
    for target in imports(path):
      if room(name) != room(target):
        found[room(name), room(target)].append(f'{name} -> {target}')
  return dict(found)


def circles() -> list[list[str]]:
  """Modules that import one another, directly or not; a list for each circle."""
  graph = {name: imports(path) for name, path in modules().items()}
  reach: dict[str, set[str]] = {}
  for start in graph:
    seen, waiting = set(), list(graph[start])
    while waiting:
      name = waiting.pop()
      if name not in seen:
        seen.add(name)
        waiting.extend(graph[name])
    reach[start] = seen
  rings = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in reach if a in reach[a]}
  return [list(ring) for ring in sorted(rings)]


def main() -> None:
  """Prints the figures."""
  lines = {name: path.read_text(encoding='utf-8').count('\n') for name, path in modules().items()}
  rooms = collections.Counter()
  files = collections.Counter()
  for name, count in lines.items():
    part = 'data/builders' if name.startswith(('dream_jax.data.builders', 'dream_jax.data.pickles')) else room(name)
    rooms[part] += count
    files[part] += 1
  for name, count in rooms.most_common():
    print(f'{name:16s} {files[name]:4d} files {count:6d} lines')
  apart = sum(rooms[name] for name in ('data/builders', 'datacheck', 'scaling'))
  total = sum(rooms.values())
  print(f'all: {len(lines)} files, {total} lines; without builders, datacheck and scaling {total - apart}')
  p90 = statistics.quantiles(lines.values(), n=10)[-1]
  print(f'90 % of modules have at most {p90:.0f} lines, the longest {max(lines.values())}')
  loose = sum(1 for path in PACKAGE.glob('*.py'))
  print(f'loose files {loose}, rooms {len({room(n) for n in lines})}, arrows {len(arrows())}, circles {len(circles())}')


if __name__ == '__main__':
  main()

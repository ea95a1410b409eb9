"""How much memory there is, so that what cannot fit is refused with a figure instead of being killed halfway."""

from pathlib import Path

from dream_jax.errors import UserError


def available_bytes() -> int | None:
  """Bytes this process may still take: what the system has left, or what its control group allows; None if unknown."""
  left = (_system_left(), _group_left())
  known = [value for value in left if value is not None]
  return min(known) if known else None


def require(needed: int, what: str) -> None:
  """Refuses work that needs more memory than there is.

  Args:
    needed: bytes.
    what: the work, as the subject of the message: 'reading FILE'.

  Raises:
    UserError: less than `needed` is available.
  """
  available = available_bytes()
  if available is not None and needed > available:
    raise UserError(
      f'{what} needs {show(needed)} of memory; {show(available)} are available: close other programs, or use a machine '
      'with more'
    )


def show(size: float) -> str:
  """A number of bytes as people write it."""
  for unit in ('bytes', 'kB', 'MB', 'GB'):
    if abs(size) < 1000 or unit == 'GB':
      return f'{size:.0f} bytes' if unit == 'bytes' else f'{size:.1f} {unit}'
    size /= 1000
  raise AssertionError('unreachable')


def _system_left() -> int | None:
  """Linux's own estimate of what can be taken without swapping."""
  try:
    with open('/proc/meminfo', encoding='ascii') as file:
      fields = dict(line.split(':', 1) for line in file)
    return int(fields['MemAvailable'].split()[0]) * 1024
  except (OSError, KeyError, ValueError):
    return None


def _group_left(folder: Path = Path('/sys/fs/cgroup')) -> int | None:
  """What a container's limit (control groups, version 2) leaves; its page cache counts as free."""
  try:
    most, used = ((folder / f'memory.{name}').read_text(encoding='ascii').strip() for name in ('max', 'current'))
    if most == 'max':
      return None
    parts = dict(line.split() for line in (folder / 'memory.stat').read_text(encoding='ascii').splitlines())
    return int(most) - int(used) + int(parts.get('inactive_file', 0))
  except (OSError, ValueError):
    return None

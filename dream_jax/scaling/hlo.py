"""What the text of a compiled program says: what it sends between devices, and how many kernels it starts.

XLA prints a program as computations, each a list of instructions `%name = TYPE operation(operands), attributes`. Loops
and fusions call other computations by name, and a loop says how often it runs, so one walk from the entry tells how
often everything is executed.
"""

import collections
import dataclasses
import math
import re

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all')

_HEAD = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([a-z][\w\-]*)\(')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
_CALLED = re.compile(r'\b(body|condition|calls|to_apply|\w+_computations?)=(\{[^}]*\}|%?[\w.\-]+)')
_TRIPS = re.compile(r'"?known_trip_count"?:\{"?n"?:"?(\d+)')
_GROUP, _GROUPS = re.compile(r'replica_groups=\{\{([\d,]+)\}'), re.compile(r'replica_groups=\[\d+,(\d+)\]')
_BITS = re.compile(r'\d+')
# They start nothing on a device: names for values that are there, and calls whose computations are counted themselves.
_NAMES = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'replica-id')
_NO_KERNEL = frozenset((*_NAMES, 'while', 'call', 'conditional', 'async-start'))


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction by which devices exchange data.

  Attributes:
    kind: one of COLLECTIVES; the start of an asynchronous one counts, its end does not.
    dtype: element type, such as 'f32'.
    num_bytes: size of the whole array on one device: what is reduced, what gathering leaves, what is scattered.
    devices: how many take part, each with its own group of them.
    times: how often a call of the program executes it.
  """

  kind: str
  dtype: str
  num_bytes: int
  devices: int
  times: int


@dataclasses.dataclass(frozen=True)
class ProgramText:
  """What a compiled program does beside arithmetic, in one call.

  Attributes:
    collectives: in the order of the text.
    kernels: instructions that start something on a device, loops counted as often as they run.
  """

  collectives: tuple[Collective, ...]
  kernels: int


def read_program(text: str, num_devices: int) -> ProgramText:
  """What the text of a compiled program says.

  Args:
    text: HLO, as `compiled.as_text()` gives it.
    num_devices: devices of the program; a group that is not written out is all of them.
  """
  computations, entry = _computations(text)
  times, inside = _executions(computations, entry)
  found, kernels = [], 0
  for name, lines in computations.items():
    for line in lines:
      match = _INSTRUCTION.match(line)
      if not match or not times[name]:
        continue
      shape, operation = match.groups()
      kind = operation.removesuffix('-start')
      if kind in COLLECTIVES:
        found.append(_collective(kind, shape, line, num_devices, times[name], started=kind != operation))
      if name not in inside and operation not in _NO_KERNEL and not operation.endswith('-done'):
        kernels += times[name]
  return ProgramText(tuple(found), kernels)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """(lines of each computation, name of the first one)."""
  computations, entry, lines = {}, '', []
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head:
      lines = computations[head[2]] = []
      entry = head[2] if head[1] else entry
    else:
      lines.append(line)
  return computations, entry


def _executions(computations: dict[str, list[str]], entry: str) -> tuple[collections.Counter[str], set[str]]:
  """(how often each computation is executed, those that are part of one kernel: of fusions and reductions)."""
  times: collections.Counter[str] = collections.Counter()
  inside: set[str] = set()

  def visit(name: str, count: int, part: bool) -> None:
    times[name] += count
    if part:
      inside.add(name)
    for line in computations.get(name, ()):
      match = _INSTRUCTION.match(line)
      if not match or match[2].endswith(('-done', '-update')):  # They name again what their start has called.
        continue
      operation = match[2]
      trips = _TRIPS.search(line)
      for role, names in _CALLED.findall(line):
        repeated = count * int(trips[1]) if trips and operation == 'while' and role == 'body' else count
        one_kernel = part or operation not in ('while', 'call', 'conditional', 'async-start')
        for called in re.findall(r'[\w.\-]+', names):
          visit(called, repeated, one_kernel)

  visit(entry, 1, False)
  return times, inside


def _collective(kind: str, shape: str, line: str, num_devices: int, times: int, *, started: bool) -> Collective:
  """The collective of one line."""
  arrays = _ARRAY.findall(shape)
  if kind == 'collective-permute' and started:
    arrays = [a for a in arrays if a != ('u32', '')]  # Numbers that it synchronises by.
  if started and kind != 'all-reduce':
    arrays = arrays[len(arrays) // 2 :]  # What goes in stands before what comes out.
  devices = _group_size(line, num_devices)
  num_bytes = sum(_size(dtype, dims) for dtype, dims in arrays)
  return Collective(
    kind,
    '+'.join(dict.fromkeys(dtype for dtype, _ in arrays)),
    num_bytes * devices if kind == 'reduce-scatter' else num_bytes,
    devices,
    times,
  )


def _group_size(line: str, num_devices: int) -> int:
  written, counted = _GROUP.search(line), _GROUPS.search(line)
  if written:
    return written[1].count(',') + 1
  return int(counted[1]) if counted else num_devices


def _size(dtype: str, dims: str) -> int:
  """Bytes of an array, 'f32' and '5,64' for instance; the numbers in names of types are bits, but for pred's byte."""
  bits = _BITS.search(dtype)
  return math.prod(int(d) for d in dims.split(',') if d) * (int(bits[0]) if bits else 8) // 8

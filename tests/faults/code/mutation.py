"""One mutation: a text of a file that stands there once, what replaces it, and the tests that must notice."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = 'dream_jax'


@dataclasses.dataclass(frozen=True)
class Mutation:
  """A fault in the code.

  Attributes:
    name: what is wrong, in a few words; unique.
    file: where, relative to the repository.
    old: the text that is replaced; it stands in the file exactly once.
    new: what replaces it.
    tests: what has to turn red, as pytest takes it, relative to `tests/`: files, or tests of a file after '::'.
  """

  name: str
  file: str
  old: str
  new: str
  tests: tuple[str, ...]

  def mutated(self, text: str) -> str:
    """The text of the file with the fault in it.

    Raises:
      ValueError: the old text is not there, or more than once, or the new one is the same.
    """
    found = text.count(self.old)
    if found != 1 or self.old == self.new:
      raise ValueError(
        f'{self.name!r} replaces {self.old!r} in {self.file}; found it {found} times, expected once and a new text'
        ' that differs: write the mutation anew'
      )
    return text.replace(self.old, self.new)

  def apply(self, root: Path) -> None:
    """Writes the fault into the file below `root`, and removes what Python has compiled of it.

    Python takes a compiled file for current if size and second of change agree, which a mutation may leave as they are.
    """
    path = root / self.file
    path.write_text(self.mutated(path.read_text(encoding='utf-8')), encoding='utf-8')
    forget_compiled(path)


def forget_compiled(path: Path) -> None:
  """Removes what Python has compiled of a source file."""
  for compiled in (path.parent / '__pycache__').glob(f'{path.stem}.*.pyc'):
    compiled.unlink()


def faults(file: str, *rows: tuple[str, str, str, str]) -> Iterator[Mutation]:
  """Mutations of one file of the package from rows (name, tests with blanks between, old text, new text)."""
  for name, tests, old, new in rows:
    yield Mutation(name, f'{_PACKAGE}/{file}', old, new, tuple(tests.split()))

"""The code blocks of the README and of the documentation, for the tests that run them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r'^( *)```(\w*)([^\n]*)\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')


class Block(NamedTuple):
  """One fenced block.

  Attributes:
    page: file it is on.
    line: where its code begins.
    language: what stands behind the fence.
    title: name of the file that it shows, or ''.
    code: its text.
  """

  page: Path
  line: int
  language: str
  title: str
  code: str


def pages(root: Path) -> list[Path]:
  """The README and every page of the documentation but the research log."""
  return [root / 'README.md', *sorted((root / 'docs').glob('*.md'))]


def blocks(page: Path, *languages: str) -> list[Block]:
  """The blocks of a page, in order."""
  text = page.read_text(encoding='utf-8')
  found = []
  for match in _FENCE.finditer(text):
    title = _TITLE.search(match[3])
    code = re.sub(rf'^{match[1]}', '', match[4], flags=re.MULTILINE)
    line = text.count('\n', 0, match.start()) + 2
    found.append(Block(page, line, match[2], title[1] if title else '', code))
  return [block for block in found if block.language in languages]


def commands(block: Block) -> list[list[str]]:
  """The commands of a shell block, as words; what follows && or a semicolon is one of its own."""
  text = re.sub(r'\\\n\s*', ' ', block.code)
  found = []
  for line in text.splitlines():
    words: list[str] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars='&;|')
    lexer.whitespace_split = True
    for word in lexer:
      if word in ('&&', ';', '|', '||'):
        found.append(words)
        words = []
      else:
        words.append(word)
    found.append(words)
  return [words for words in found if words]

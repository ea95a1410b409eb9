"""One table, laid out as plain text for a terminal and as HTML for the page."""

import dataclasses
import html
import textwrap


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells as strings, with what is said about them.

  Attributes:
    title: what the table shows.
    columns: header, the first one over the row names.
    rows: cells, as many a row as there are columns; the first is the row's name. A line break in a cell is one on the
      page and a space in text.
    note: how to read it; printed below.
    best: (row, column) of cells to stress; text stars them, HTML makes them bold.
    muted: rows that are references and no contenders.
  """

  title: str
  columns: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  note: str = ''
  best: frozenset[tuple[int, int]] = frozenset()
  muted: frozenset[int] = frozenset()

  def to_text(self, width: int = 120) -> str:
    """The table in lines of at most `width` characters; columns that do not fit follow below, row names repeated."""
    cells = [list(self.columns)]
    for r, row in enumerate(self.rows):
      cells.append([text.replace('\n', ' ') + ('*' if (r, c) in self.best else '') for c, text in enumerate(row)])
    sizes = [max(len(line[c]) for line in cells) for c in range(len(self.columns))]
    lines = [self.title]
    for block in _blocks(sizes, width):
      lines.append('')
      for number, line in enumerate(cells):
        parts = [line[c].ljust(sizes[c]) if c == 0 else line[c].rjust(sizes[c]) for c in block]
        lines.append('  '.join(parts).rstrip())
        if number == 0:
          lines.append('  '.join('-' * sizes[c] for c in block))
    return '\n'.join([*lines, '', *textwrap.wrap(self.note, width)]).rstrip() + '\n'

  def to_html(self) -> str:
    """A `<figure>` with the table, its caption and note; every text is escaped."""
    head = ''.join(f'<th scope="col">{html.escape(c)}</th>' for c in self.columns)
    body = []
    for r, row in enumerate(self.rows):
      cells = [f'<th scope="row">{html.escape(row[0])}</th>']
      for c, text in enumerate(row[1:], start=1):
        text = html.escape(text).replace('\n', '<br>')
        cells.append(f'<td><strong>{text}</strong></td>' if (r, c) in self.best else f'<td>{text}</td>')
      body.append(f'<tr{" class=muted" if r in self.muted else ""}>{"".join(cells)}</tr>')
    note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ''
    return (
      f'<div class="table"><div class="scroll" tabindex="0"><table><caption>{html.escape(self.title)}</caption>'
      f'<thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>{note}</div>'
    )


def _blocks(sizes, width):
  """Column indices split so that each block, led by column 0, fits the width."""
  blocks, used = [[0]], sizes[0]
  for c in range(1, len(sizes)):
    if len(blocks[-1]) > 1 and used + 2 + sizes[c] > width:
      blocks.append([0])
      used = sizes[0]
    blocks[-1].append(c)
    used += 2 + sizes[c]
  return blocks

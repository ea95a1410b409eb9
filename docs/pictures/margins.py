"""Draws DREAM minus its controls from the table of the research log, for the page of results.

python docs/pictures/margins.py       # writes margins.svg beside this file
"""

import re
from pathlib import Path

_LOG = Path(__file__).resolve().parents[1] / 'notebook' / 'method.md'
_SECTION = '### Against the controls'
_GROUPS = (('digits', 'Digits (real, 817 test samples)'), ('MOSI, bc-LSTM', 'CMU-MOSI, bc-LSTM split (real, 752)'))
_CELL = re.compile(r'(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]')
_LOW, _HIGH = -3.0, 6.0
_LEFT, _PANEL, _GAP, _TOP, _ROW = 276, 108, 10, 64, 26
_INK, _QUIET, _LINE, _MARK = '#1f2933', '#5b6773', '#d9e2ec', '#d55e00'
_FONT = "font-family='Helvetica, Arial, sans-serif'"


def table() -> tuple[list[str], dict[str, list[tuple[float, float, float, bool]]]]:
  """Protocols, and for each row 'DATA: CONTROL' the (difference, low, high, significant) of every protocol."""
  lines = iter(_LOG.read_text(encoding='utf-8').split(_SECTION)[1].splitlines())
  head = next(line for line in lines if line.startswith('|'))
  rows = {}
  for line in lines:
    if rows and not line.startswith('|'):
      break
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    found = [(_CELL.search(cell), '†' in cell) for cell in cells[1:]]
    if all(match for match, _ in found) and found:
      rows[cells[0]] = [(*(float(x) for x in match.groups()), sure) for match, sure in found if match]
  return [cell.strip() for cell in head.strip('|').split('|')][1:], rows


def drawn() -> str:
  """The picture as SVG."""
  protocols, rows = table()
  parts, y = [], _TOP
  for data, title in _GROUPS:
    parts.append(_text(16, y + 14, title, 13, bold=True))
    y += 24
    for name, cells in rows.items():
      if not name.startswith(f'{data}: ') or 'told the mask' in name:
        continue
      parts.append(_text(28, y + 14, name.removeprefix(f'{data}: '), 12))
      parts += [_interval(i, y + 10, cell) for i, cell in enumerate(cells)]
      y += _ROW
    y += 10
  width, height = _LEFT + len(protocols) * (_PANEL + _GAP) + 6, y + 48
  frame = [_text(16, 24, 'DREAM minus the control, accuracy points', 14, bold=True)]
  for i, protocol in enumerate(protocols):
    frame.append(_text(_LEFT + i * (_PANEL + _GAP) + _PANEL / 2, 52, protocol, 12, middle=True))
    frame += [_tick(i, value, _TOP, y) for value in (-2, 0, 2, 4)]
  foot = "Lines: 95 % interval over twenty seeds and test samples. Filled: significant after Holm's correction."
  size = f"viewBox='0 0 {width} {height}' width='{width}' height='{height}'"
  return '\n'.join(
    [
      f"<svg xmlns='http://www.w3.org/2000/svg' {size} {_FONT} role='img' aria-label='DREAM minus its controls'>",
      f"<rect width='{width}' height='{height}' rx='10' fill='#ffffff'/>",
      *frame,
      *parts,
      _text(16, height - 10, foot, 12, colour=_QUIET),
      '</svg>',
      '',
    ]
  )


def _x(panel: int, value: float) -> float:
  return round(_LEFT + panel * (_PANEL + _GAP) + _PANEL * (value - _LOW) / (_HIGH - _LOW), 1)


def _interval(panel: int, y: float, cell: tuple[float, float, float, bool]) -> str:
  middle, low, high, sure = cell
  line = f"<line x1='{_x(panel, low)}' y1='{y}' x2='{_x(panel, high)}' y2='{y}' stroke='{_MARK}' stroke-width='2'/>"
  fill = _MARK if sure else '#ffffff'
  return f"{line}<circle cx='{_x(panel, middle)}' cy='{y}' r='4' fill='{fill}' stroke='{_MARK}' stroke-width='2'/>"


def _tick(panel: int, value: float, top: float, bottom: float) -> str:
  x, colour = _x(panel, value), '#5b6773' if value == 0 else _LINE
  line = f"<line x1='{x}' y1='{top}' x2='{x}' y2='{bottom}' stroke='{colour}'/>"
  return line + _text(x, bottom + 14, f'{value:+d}' if value else '0', 11, colour=_QUIET, middle=True)


def _text(x: float, y: float, text: str, size: int, *, bold=False, colour=_INK, middle=False) -> str:
  weight = " font-weight='bold'" if bold else ''
  anchor = " text-anchor='middle'" if middle else ''
  return f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{colour}'{weight}{anchor}>{text}</text>"


if __name__ == '__main__':
  path = Path(__file__).with_suffix('.svg')
  path.write_text(drawn())
  print(path)

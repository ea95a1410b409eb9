"""Draws the stages of DREAM, for the README and the documentation.

python docs/pictures/pipeline.py      # writes pipeline.svg beside this file
"""

from pathlib import Path

_WIDTH, _HEIGHT = 960, 372
_INK, _QUIET, _LINE = '#1f2933', '#5b6773', '#9aa5b1'
_FONT = "font-family='Helvetica, Arial, sans-serif'"
# Three modalities of one sample: name, what arrived, colour, presence, contribution, gate.
_SLOTS = (
  ('audio', 'real', '#0072b2', 0.97, 0.62, 0.03),
  ('video', 'zeros: missing', '#d55e00', 0.02, 0.0, 0.97),
  ('text', 'of another sample', '#009e73', 0.31, 0.12, 0.64),
)
# Title, what it answers, and the letter of its formula.
_STAGES = (
  ('Encode', 'one network each', 'latent and evidence'),
  ('Recognise', 'what is really there?', 'presence'),
  ('Assess', 'what is each worth here?', 'contribution'),
  ('Reconstruct', 'missing or weak ones', 'gate'),
  ('Fuse', 'by soft mask', 'prediction'),
)
_LEFT, _STEP, _BOX, _TOP, _ROW = 196, 152, 130, 58, 62


def drawn() -> str:
  """The picture as SVG."""
  size = f"viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}'"
  label = "role='img' aria-label='The stages of DREAM: encode, recognise, assess, reconstruct, fuse'"
  box = "viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'"
  parts = [
    f"<svg xmlns='http://www.w3.org/2000/svg' {size} {_FONT} {label}>",
    f"<defs><marker id='tip' {box}><path d='M0,0 L8,4 L0,8 z' fill='{_LINE}'/></marker></defs>",
    f"<rect width='{_WIDTH}' height='{_HEIGHT}' rx='10' fill='#ffffff'/>",
    _text(20, 24, 'What arrives', 15, bold=True),
    _text(20, 40, 'values: an illustration', 11, colour=_QUIET),
  ]
  bottom = _TOP + len(_SLOTS) * _ROW
  for i, (title, question, answer) in enumerate(_STAGES):
    x = _LEFT + i * _STEP
    parts.append(
      f"<rect x='{x}' y='{_TOP - 10}' width='{_BOX}' height='{bottom - _TOP + 8}' rx='8' fill='#f5f7fa'"
      " stroke='#d9e2ec'/>"
    )
    parts.append(_text(x + _BOX / 2, 24, title, 15, bold=True, middle=True))
    parts.append(_text(x + _BOX / 2, 40, question, 11, colour=_QUIET, middle=True))
    parts.append(_text(x + _BOX / 2, bottom + 16, answer, 12, colour=_QUIET, middle=True))
  for row, slot in enumerate(_SLOTS):
    parts += _slot(_TOP + row * _ROW, *slot)
  parts += _prediction(_LEFT + 4 * _STEP, _TOP)
  parts += _training(bottom + 36)
  return '\n'.join([*parts, '</svg>', ''])


def _slot(y: float, name: str, arrived: str, colour: str, *values: float) -> list[str]:
  """One modality through the first four stages."""
  middle = y + 20
  parts = [
    f"<rect x='20' y='{y}' width='138' height='40' rx='6' fill='none' stroke='{colour}' stroke-width='2'/>",
    _text(30, y + 17, name, 13, bold=True, colour=colour),
    _text(30, y + 32, arrived, 11, colour=_QUIET),
    _arrow(160, middle, _LEFT - 2),
  ]
  for i, value in enumerate((None, *values)):
    x = _LEFT + i * _STEP
    if value is None:
      shades = (0.9, 0.35, 0.6, 0.2, 0.75, 0.45) if arrived == 'real' else (0.4, 0.7, 0.25, 0.8, 0.3, 0.55)
      shades = (0.12,) * 6 if 'zeros' in arrived else shades
      for k, shade in enumerate(shades):
        parts.append(
          f"<rect x='{x + 29 + 12 * k}' y='{y + 12}' width='11' height='16' fill='{colour}' opacity='{shade}'/>"
        )
    else:
      parts.append(f"<rect x='{x + 17}' y='{y + 13}' width='70' height='14' rx='3' fill='#e4e9ef'/>")
      width = max(2, round(70 * value))
      parts.append(f"<rect x='{x + 17}' y='{y + 13}' width='{width}' height='14' rx='3' fill='{colour}'/>")
      parts.append(_text(x + 94, y + 25, f'.{round(100 * value):02d}', 11))
    parts.append(_arrow(x + _BOX + 2, middle, x + _STEP - 2))
  return parts


def _prediction(x: float, y: float) -> list[str]:
  """Bars of a prediction over classes."""
  parts = []
  for k, height in enumerate((10, 14, 96, 20, 8)):
    parts.append(
      f"<rect x='{x + 25 + 17 * k}' y='{y + 134 - height}' width='13' height='{height}' rx='2' fill='{_INK}'"
      f" opacity='{1 if height > 50 else 0.3}'/>"
    )
  return [*parts, f"<line x1='{x + 20}' y1='{y + 136}' x2='{x + 112}' y2='{y + 136}' stroke='{_LINE}'/>"]


def _training(y: float) -> list[str]:
  """What training adds, below the stages."""
  lines = (
    (
      'In training',
      'the trainer removes modalities at random (injection) and remembers which. The losses read that; the',
    ),
    ('', 'model never does. Training data may be incomplete from the start, and nobody has to say where.'),
    ('In use', 'no mask enters. What is missing, damaged or foreign has to be recognised from the inputs.'),
  )
  parts = [f"<line x1='20' y1='{y - 6}' x2='{_WIDTH - 20}' y2='{y - 6}' stroke='#d9e2ec'/>"]
  for i, (head, rest) in enumerate(lines):
    parts.append(_text(20, y + 18 + 22 * i, head, 13, bold=True))
    parts.append(_text(_LEFT - 76, y + 18 + 22 * i, rest, 13))
  return parts


def _arrow(x: float, y: float, end: float) -> str:
  return f"<line x1='{x}' y1='{y}' x2='{end}' y2='{y}' stroke='{_LINE}' stroke-width='1.5' marker-end='url(#tip)'/>"


def _text(x: float, y: float, text: str, size: int, *, bold=False, colour=_INK, middle=False) -> str:
  weight = " font-weight='bold'" if bold else ''
  anchor = " text-anchor='middle'" if middle else ''
  return f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{colour}'{weight}{anchor}>{text}</text>"


if __name__ == '__main__':
  path = Path(__file__).with_suffix('.svg')
  path.write_text(drawn())
  print(path)

"""The figures of a study, drawn with matplotlib's Agg canvas into PNG bytes.

Colours are Okabe and Ito's, told apart with the usual kinds of colour blindness; every series also has its own marker
and dash, so nothing depends on colour alone. Nothing goes through pyplot: no global figure, no display, no backend
switch. Matplotlib is imported where it is used: only a report needs it.
"""

import io
import textwrap
from typing import Any, NamedTuple

import numpy as np

from dream_jax.report import results as read
from dream_jax.report import tables

_COLOURS = ('#D55E00', '#0072B2', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#7A5230', '#5C4B99')
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
_DASHES = ((), (5, 1.5), (1.5, 1.2), (7, 1.5, 1.5, 1.5))
_INK, _GREY, _GRID = '#222222', '#767676', '#DDDDDD'
_STYLE: Any = {
  'font.family': 'DejaVu Sans',
  'font.size': 9.5,
  'text.color': _INK,
  'axes.labelcolor': _INK,
  'axes.titlesize': 10.5,
  'axes.titleweight': 'bold',
  'axes.titlelocation': 'left',
  'axes.edgecolor': _GREY,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.axisbelow': True,
  'grid.color': _GRID,
  'xtick.color': _INK,
  'ytick.color': _INK,
  'legend.frameon': False,
  'hatch.linewidth': 0.7,
}
_DPI = 150
_COLOURS_OF_A_PICTURE = 128


class Drawing(NamedTuple):
  """One figure: file name without suffix, caption, a description for readers who can't see it, and the PNG."""

  name: str
  caption: str
  alt: str
  png: bytes


def draw(results: dict) -> list[Drawing]:
  """Every figure the results allow: a curve or heat map per protocol, comparisons, contributions, gradients.

  Of a study those of its first regime.
  """
  import matplotlib

  results, drawings = read.defined(results), []
  for regime in read.regimes(results)[:1]:
    results = read.of_regime(results, regime)
  with matplotlib.rc_context(_STYLE):
    for protocol in read.protocols(results):
      drawings.append(_protocol(results, protocol))
    for a, metric in dict.fromkeys((e['a'], e['metric']) for e in results.get('comparisons') or ()):
      drawings.append(_comparisons(results, a, metric))
    for method in results['methods']:
      for protocol in read.contribution(results, method):
        drawings.append(_contributions(results, method, protocol))
    drawings.append(_imbalance(results))
  return [d for d in drawings if d is not None]


def _protocol(results, protocol):
  metric, _ = read.primary(results)
  curves = {m: read.curve(results, m, protocol, metric) for m in results['methods']}
  num_conditions = len(read.conditions(results, protocol))
  curves = {m: c for m, c in curves.items() if c is not None and len(c.mean) == num_conditions}
  if num_conditions < 2 or not any(np.isfinite(c.mean).any() for c in curves.values()):
    return None
  rates = read.rates(results, protocol)
  return _heat_map(results, protocol, curves) if rates is None else _robustness(results, protocol, rates, curves)


def _robustness(results, protocol, rates, curves):
  """Metric against rate, a line and an interval band for every method."""
  metric, higher = read.primary(results)
  style = read.measure(metric)
  figure = _figure(9.2, max(3.8, 1.2 + 0.3 * len(curves)))
  axes = figure.add_subplot()
  looks = _looks(results)
  contenders = [c for m, c in curves.items() if m not in read.CONSTANT_METHODS and np.isfinite(c.mean).any()]
  limits = _limits(contenders or list(curves.values()), style.scale)
  off_axis = []
  for method in sorted(curves, key=lambda m: read.mean(curves[m].mean) * (-1 if higher else 1)):
    mean, low, high = (style.scale * v for v in curves[method])
    label = read.title(results, method)
    if not np.isfinite(mean).any():
      continue
    if np.nanmax(mean) < limits[0] or np.nanmin(mean) > limits[1]:
      off_axis.append(f'{label} is off the axis, at {read.mean(mean):.{style.digits}f} on average')
      continue
    look = looks[method]
    axes.fill_between(rates, low, high, color=look['color'], alpha=0.14, linewidth=0)
    axes.plot(rates, mean, label=_wrapped(label), **look)
  axes.set(xlabel='missing rate', ylabel=style.label, ylim=limits, title=protocol)
  axes.set_xticks(rates)
  axes.grid(axis='y')
  axes.legend(loc='upper left', bbox_to_anchor=(1.01, 1.0), borderaxespad=0, handlelength=3.2, labelspacing=0.7)
  seeds = max(read.seed_counts(results))
  band = 'band: 95 % interval over seeds, test set fixed' if seeds > 1 else 'one seed: no band'
  caption = '. '.join(
    [f'{style.label.replace(", %", "")} under {protocol}; {band}. Legend from best to worst on average', *off_axis]
  )
  alt = f'Line chart of {style.label} against the missing rate for {len(curves)} methods under {protocol}.'
  return Drawing(_file_name('robustness', protocol), caption + '.', alt, _png(figure))


def _heat_map(results, protocol, curves):
  """Methods x conditions with the value written in every cell, for conditions that are no rates."""
  metric, higher = read.primary(results)
  style = read.measure(metric)
  names = [str(c.get('name')) for c in read.conditions(results, protocol)]
  grid = style.scale * np.array([c.mean for c in curves.values()])
  contenders = np.array([m not in read.CONSTANT_METHODS for m in curves])
  shown = grid[contenders] if contenders.any() else grid
  low, high = (np.nanmin(shown), np.nanmax(shown)) if np.isfinite(shown).any() else (0.0, 1.0)
  labels = [_wrapped(read.title(results, m)) for m in curves]
  figure = _figure(2.2 + 0.07 * _widest(labels) + 0.78 * len(names), 1.5 + 0.36 * len(labels))
  axes = figure.add_subplot()
  image = axes.imshow(
    grid, cmap='cividis' if higher else 'cividis_r', vmin=low, vmax=max(high, low + 1e-9), aspect='auto'
  )
  middle = (low + high) / 2
  for (row, column), value in np.ndenumerate(grid):
    if np.isfinite(value):
      light = (value > middle) == higher
      text = f'{value:.{style.digits}f}'
      axes.text(column, row, text, ha='center', va='center', fontsize=8.5, color=_INK if light else 'white')
  axes.set_xticks(range(len(names)), names, rotation=30, ha='right', rotation_mode='anchor')
  axes.set_yticks(range(len(labels)), labels)
  axes.set_title(f'{protocol}: {style.label}')
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)
  caption = f'{style.label.replace(", %", "")} under {protocol} by condition, mean over seeds. Light is better.'
  alt = f'Heat map of {style.label} for {len(labels)} methods under {len(names)} conditions of {protocol}.'
  return Drawing(_file_name('conditions', protocol), caption, alt, _png(figure))


def _comparisons(results, a, metric):
  """Difference and interval of `a` to each opponent, a panel for every protocol; constant predictors left out."""
  entries = [e for e in results['comparisons'] if (e['a'], e['metric']) == (a, metric) and e.get('ci95')]
  entries = [e for e in entries if e['b'] not in read.CONSTANT_METHODS and e.get('difference') is not None]
  panels, opponents = list(dict.fromkeys(e['protocol'] for e in entries)), list(dict.fromkeys(e['b'] for e in entries))
  if not entries:
    return None
  style, columns = read.measure(metric), min(3, len(panels))
  lines = -(-len(panels) // columns)
  labels = [_wrapped(read.title(results, b)) for b in opponents]
  width = 1.0 + 0.075 * _widest(labels) + 2.7 * columns
  figure = _figure(width, lines * (1.0 + 0.3 * len(opponents)))
  grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
  for number, axes in enumerate(grid.flat):
    if number >= len(panels):
      axes.set_visible(False)
      continue
    for entry in (e for e in entries if e['protocol'] == panels[number]):
      row = opponents.index(entry['b'])
      low, high = read.within_range(metric, entry['ci95'], difference=True)
      colour = {'win': _COLOURS[1], 'loss': _COLOURS[0]}.get(tables.verdict(results, entry), _GREY)
      axes.plot([style.scale * low, style.scale * high], [row, row], color=colour, linewidth=1.6)
      filled = colour if colour != _GREY else 'white'
      axes.plot(style.scale * entry['difference'], row, 'o', color=colour, markerfacecolor=filled, markersize=5.5)
    axes.axvline(0, color=_INK, linewidth=0.9)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_title(panels[number])
    axes.grid(axis='x')
    axes.tick_params(axis='y', length=0)
  unit = 'points' if style.scale == 100 else ''
  better = 'right' if tables.higher(results, metric) else 'left'
  figure.supxlabel(
    f'difference in {style.label.replace(", %", "")} {unit} ({better} of zero: {read.title(results, a)} is better)',
    fontsize=9.5,
  )
  caption = (
    f'{read.title(results, a)} minus each other method, with the 95 % interval over seeds and test samples. '
    'Filled: told apart from zero after Holm correction (blue a win, orange a loss); hollow grey: not told apart. '
    'Horizontal scales differ.'
  )
  alt = f'Differences of {a} to {len(opponents)} methods under {len(panels)} protocols with intervals.'
  return Drawing(_file_name('comparisons', f'{a} {metric}'), caption, alt, _png(figure))


def _contributions(results, method, protocol):
  """Above: contributions of kept and removed slots, side by side for each modality. Below: gates and soft mask."""
  record, modalities = read.contribution(results, method)[protocol], list(results.get('modalities') or ())
  names = [str(c.get('name')) for c in read.conditions(results, protocol)]
  series = {k: read.by_modality(record, k, len(modalities)) for k in _BARS | _LINES}
  series = {k: v for k, v in series.items() if v is not None and v.shape == (len(names), len(modalities))}
  if not series or not names:
    return None
  if 'contributions_kept' in series or 'contributions_removed' in series:
    series.pop('contributions', None)  # the mean over both says less
  bars, lines = [k for k in _BARS if k in series], [k for k in _LINES if k in series]
  rows = [group for group in (bars, lines) if group]
  columns = len(modalities)
  figure = _figure(1.6 + max(2.6, 0.36 * len(names)) * columns, 0.9 + 2.0 * len(rows))
  grid = figure.subplots(len(rows), columns, squeeze=False, sharey='row', sharex=True)
  places = np.arange(len(names))
  for line, group in enumerate(rows):
    for column, axes in enumerate(grid[line]):
      for number, key in enumerate(group):
        values = series[key][:, column]
        if group is bars:
          width = 0.8 / len(bars)
          offset = (number - (len(bars) - 1) / 2) * width
          axes.bar(places + offset, np.nan_to_num(values), width, label=_BARS[key][0], linewidth=0.7, **_BARS[key][1])
        else:
          # Conditions that are no rates have no order a line could follow.
          width = 0.0 if read.rates(results, protocol) is None else 1.6
          axes.plot(places, values, label=_LINES[key][0], linewidth=width, markersize=5, **_LINES[key][1])
      if group is bars:
        axes.axhline(1.0, color=_INK, linewidth=0.9, linestyle=(0, (2, 2)))
      axes.set_ylim(0.0, _top([series[key] for key in group], 1.0))
      axes.grid(axis='y')
      axes.set_xticks(
        places, names, **({'rotation': 40, 'ha': 'right', 'rotation_mode': 'anchor'} if _long(names) else {})
      )
      if line == 0:
        axes.set_title(modalities[column])
    grid[line][0].set_ylabel('mean contribution' if group is bars else 'mean weight')
    grid[line][-1].legend(loc='upper left', bbox_to_anchor=(1.02, 1.0), borderaxespad=0)
  figure.supxlabel('condition' if read.rates(results, protocol) is None else 'missing rate', fontsize=9.5)
  caption = (
    f'{read.title(results, method)} under {protocol}: mean over test samples and seeds for each modality. The dotted '
    'line at 1 is the most that equal shares of a certain class reach; no bar where no slot was kept or removed. Gate: '
    'share replaced by reconstruction.'
  )
  alt = f'Contributions of {", ".join(modalities)} under {len(names)} conditions of {protocol}.'
  return Drawing(_file_name('contributions', f'{method} {protocol}'), caption, alt, _png(figure))


def _imbalance(results):
  """Largest over mean gradient norm of the encoders, over training, a line for every method; None without any."""
  entries = {m: e for m, e in results['methods'].items() if e.get('gradient_norms')}
  if not entries:
    return None
  figure = _figure(9.2, max(3.8, 1.2 + 0.3 * len(entries)))
  axes = figure.add_subplot()
  looks = _looks(results)
  for method, entry in entries.items():
    norms = np.array(list(entry['gradient_norms'].values()), np.float64)  # [M, calls]
    ratio = norms.max(0) / np.maximum(norms.mean(0), 1e-12)
    look = {k: v for k, v in looks[method].items() if k != 'marker'}
    axes.plot(entry['gradient_steps'], ratio, label=_wrapped(read.title(results, method)), **look)
  axes.set(xlabel='step', ylabel='largest / mean gradient norm', ylim=(1.0, None), title='Gradient imbalance')
  axes.grid(axis='y')
  axes.legend(loc='upper left', bbox_to_anchor=(1.01, 1.0), borderaxespad=0, handlelength=3.2, labelspacing=0.7)
  caption = (
    'How unequal the gradients of the modalities’ encoders are: largest over mean norm, norms averaged over seeds and '
    'over the steps of a call. 1 is equal, the number of modalities is one modality alone.'
  )
  alt = f'Lines of the gradient imbalance over training for {len(entries)} methods.'
  return Drawing('imbalance_gradients', caption, alt, _png(figure))


_BARS = {
  'contributions': ('all slots', {'color': _COLOURS[1], 'edgecolor': _COLOURS[1]}),
  'contributions_kept': ('kept slots', {'color': _COLOURS[1], 'edgecolor': _COLOURS[1]}),
  'contributions_removed': ('removed slots', {'color': '#FBE3D2', 'edgecolor': _COLOURS[0], 'hatch': '////'}),
}
_LINES = {
  'gates': ('gate', {'color': _COLOURS[2], 'marker': 's'}),
  'soft_mask': ('soft mask', {'color': _COLOURS[3], 'marker': 'o', 'dashes': (5, 1.5)}),
}


def _looks(results):
  """Colour, dash and marker of each method: the first one stands out, oracles are black, constant predictors grey."""
  looks, number = {}, 0
  for method in results['methods']:
    look = {'linewidth': 1.5, 'markersize': 4.5}
    if read.uses_oracle(results, method):
      look |= {'color': _INK, 'dashes': (2, 1.5), 'marker': 'None'}
    elif method in read.CONSTANT_METHODS:
      look |= {'color': _GREY, 'dashes': (1, 2), 'marker': 'None'}
    else:
      dashes = _DASHES[(number + number // len(_COLOURS)) % len(_DASHES)]
      look |= {'color': _COLOURS[number % len(_COLOURS)], 'marker': _MARKERS[number % len(_MARKERS)], 'dashes': dashes}
      if number == 0:
        look |= {'linewidth': 2.8, 'markersize': 6.5, 'zorder': 5}
      number += 1
    looks[method] = look
  return looks


def _limits(curves, scale):
  """Vertical limits that hold every curve with its band, and a little air."""
  values = scale * np.concatenate([np.concatenate(c) for c in curves])
  values = values[np.isfinite(values)]
  if not len(values):
    return 0.0, 1.0
  air = 0.04 * (np.ptp(values) or abs(values[0]) or 1.0)
  return float(values.min() - air), float(values.max() + air)


def _top(arrays, least):
  """Upper limit above every value of the arrays, with air for markers."""
  return 1.08 * max([least, *(float(np.nanmax(a)) for a in arrays if np.isfinite(a).any())])


def _long(names):
  return max(map(len, names)) > 4


def _wrapped(label):
  return textwrap.fill(label, 28)


def _widest(labels):
  return max(len(line) for label in labels for line in label.splitlines())


def _figure(width, height):
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), layout='constrained', facecolor='white')


def _png(figure):
  from PIL import Image

  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=_DPI)
  # Lines and flat areas have few colours: a palette is a third of the size.
  small = io.BytesIO()
  picture = Image.open(buffer).convert('RGB').quantize(_COLOURS_OF_A_PICTURE, dither=Image.Dither.NONE)
  picture.save(small, format='png', optimize=True)
  return small.getvalue()


def _file_name(kind, text):
  return f'{kind}_' + ''.join(c if c.isalnum() else '-' for c in text)

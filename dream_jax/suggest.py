"""What a user probably meant: the sentence that ends every "unknown name" message."""

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
  """Up to `limit` of `known` that look like `name`, the nearest first; an exact match but for case comes first."""
  known = list(dict.fromkeys(known))
  same = [k for k in known if k.lower() == name.lower()]
  close = difflib.get_close_matches(name, known, n=limit, cutoff=0.6)
  return list(dict.fromkeys(same + close))[:limit]


def did_you_mean(name: str, known: Iterable[str], limit: int = 12) -> str:
  """'did you mean a or b?' when something is near, else 'known: a, b, c' (at most `limit` names)."""
  known = list(dict.fromkeys(known))
  close = near(name, known)
  if close:
    return f'did you mean {" or ".join(close)}?'
  more = f', ... ({len(known)} in all)' if len(known) > limit else ''
  return f'known: {", ".join(known[:limit])}{more}' if known else 'nothing is known here'

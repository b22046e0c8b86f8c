"""JSON of the right shape but for one value: flipped bits rarely make that."""

from collections.abc import Iterator
import copy
import json
import random
from typing import Any

from tests import hostile

_HERE = "@here@"
# As they are spelled in a file; some of them are no JSON, which readers accept.
ODD = (
  *("null", "true", "false", "0", "-1", "0.5", "256", "2147483648"),
  *("1e999", "NaN", "-Infinity", "9" * 5000, "1e-400"),
  *(
    '""',
    '" "',
    '"a\\nb"',
    '"\\u0000"',
    '"\\ud800"',
    '"\\u202e"',
    '"e\\u0301"',
  ),
  *("[]", "{}", "[[]]", "[null]", '{"": 0}', '{"a": 1, "a": 2}'),
  *("[" * 100_000, "[" * 300 + "]" * 300, '{"a":' * 200 + "1" + "}" * 200),
  *('"' + "x" * 10_000 + '"', "[" + "0," * 5000 + "0]"),
)


def mutations(
  valid: Any, *, seed: int = 0, count: int = hostile.COUNT
) -> Iterator[bytes]:
  """Yield `count` files: a value, or a key, of `valid` is another in each."""
  for number in range(count):
    rng = random.Random(f"{seed} {number}")
    changed = copy.deepcopy(valid)
    place, key = rng.choice([*_places(changed)])
    kind = rng.randrange(6)
    if kind == 0:
      del place[key]
    elif kind == 1 and isinstance(place, dict):
      place[_HERE] = place.pop(key)
    elif kind == 2 and isinstance(place, list):
      place.extend(place * rng.choice((1, 300)))
    else:
      place[key] = _HERE
    odd = rng.choice([o for o in ODD if kind != 1 or o.startswith('"')])
    text = json.dumps(changed, ensure_ascii=False)
    yield text.replace(f'"{_HERE}"', odd).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
  """Yield (dict or list, key or index) of all that lies in a value."""
  if isinstance(value, dict | list):
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
      yield value, key
      yield from _places(value[key])

"""The report as Markdown: a table for each section."""

from collections.abc import Mapping
import json
from typing import Any


def markdown(report: Mapping[str, Any]) -> str:
  """Return the whole report."""
  machine = report["machine"]
  parts = [
    f"# {report['benchmark']}",
    f"{machine['device']} ({machine['devices']}), {machine['cpu']}, "
    f"{machine['cores']} cores; "
    + ", ".join(f"{name} {v}" for name, v in report["versions"].items())
    + f"; commit {report['commit']}.",
    f"`{report['command']}`",
    f"Settings: {json.dumps(report['settings'])}. Medians of the rounds, least "
    "and most in brackets.",
  ]
  for name, section in report["sections"].items():
    title = f"## {name}"
    if "seconds" in section:
      title += f" ({section['seconds']:.0f} s)"
    parts.append(title)
    if section["status"] != "done":
      reason = section.get("reason", "")
      parts.append(f"{section['status']}{': ' * bool(reason)}{reason}")
    if section["rows"]:
      parts.append(_table(section["rows"]))
  return "\n\n".join(parts) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
  titles = list(dict.fromkeys(key for row in rows for key in row))
  lines = [
    [title.replace("_", " ") for title in titles],
    ["---"] * len(titles),
    *([cell(row.get(title, "")) for title in titles] for row in rows),
  ]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def line(row: Mapping[str, Any]) -> str:
  """Return a row as text."""
  what, *others = row.items()
  return ", ".join([str(what[1]), *(f"{_named(*item)}" for item in others)])


def _named(name: str, value: Any) -> str:
  return f"{name.replace('_', ' ')} {cell(value)}"


def cell(value: Any) -> str:
  """Return a spread, a number or a text for a cell."""
  if isinstance(value, Mapping):
    least, most = number(value["min"]), number(value["max"])
    return f"{number(value['median'])} ({least} to {most})"
  if isinstance(value, float):
    return number(value)
  return str(value).replace("|", "/")


def number(value: float) -> str:
  """Return four digits, or all that stand before the point."""
  if abs(value) >= 1000:
    return f"{value:,.0f}"
  return f"{value:.4g}"

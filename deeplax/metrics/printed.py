"""How a score is printed: in percent, with the papers' two decimals."""


def score(value: float | None, none: str = "none") -> str:
  """Return 0.7721 as 77.21%.

  Args:
    value: A share, 0 to 1; None: there is nothing to score.
    none: What stands for None.
  """
  return none if value is None else f"{value:.2%}"

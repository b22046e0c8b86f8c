"""Ctrl-C and SIGTERM during a run: answered at once, obeyed when it is safe.

Python runs a signal's handler between two of its own instructions, which a step
or a compilation may delay for minutes. So a thread answers: the operating
system writes the signal's number into a pipe, which the thread reads.
"""

from collections.abc import Callable, Iterator
import contextlib
import math
import os
import signal
import sys
import threading
import time

import jax

from deeplax import parallel

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
# Signals less than these seconds apart count as one.
TOGETHER = 0.2
_SHOWN = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Watch:
  """The signals that have arrived so far.

  Attributes:
    training: Whether training has begun, so that there is something to save:
      the first signal then asks for a stop. Before, Ctrl-C interrupts as usual.
  """

  def __init__(
    self, progress: Callable[[str], None], *, together: bool = False
  ):
    """Start without signals; `together`: one of several processes."""
    self.training = False
    self._together = together
    self._calls, self._agreed = 0, False
    self._progress = progress
    self._count, self._last = 0, -math.inf
    self._answered = threading.Event()

  def stopped(self) -> bool:
    """Whether to stop here: after a step, or an image of an evaluation.

    Several processes agree on the place, so all of them must ask at the same
    ones. Once it is True it stays so.
    """
    if not self._together:
      return self._count > 0
    if not self._agreed:
      self._calls += 1
      self._agreed = parallel.stop_together(self._calls)
    return self._agreed

  def arrive(self, number: int) -> None:
    """Answer a signal; the second one ends the process."""
    before, self._last = self._last, time.monotonic()
    if self._last - before < TOGETHER:
      return
    name = _SHOWN[signal.Signals(number)]
    self._count += 1
    if self._count > 1:
      self._progress(f"{name} again: ended at once")
      os._exit(128 + number)
    if self.training and self._together:
      # As the cluster's notice, which JAX passes on to the others.
      os.kill(os.getpid(), signal.SIGTERM)
      self._progress(
        f"{name}: all processes are told; once more ends this one at once"
      )
    elif self.training:
      self._progress(
        f"{name}: saving after this step, or leaving the evaluation after this "
        "image; once more ends at once"
      )
    else:
      self._progress(
        f"{name}: ending as soon as the compiler is done; once more ends at "
        "once"
      )
    self._answered.set()

  def handle(self, number: int, frame: object) -> None:
    """Handle a signal that the thread answers."""
    if not self.training:
      self._answered.wait(1)
      if number == signal.SIGTERM:
        # As without a handler: an exception could get lost in a callback.
        sys.stdout.flush()
        os._exit(128 + number)
      # If Python cannot raise it here, `errors.command` sends it again at once,
      # which must count as the same signal however late it comes.
      self._last = time.monotonic()
      raise KeyboardInterrupt


@contextlib.contextmanager
def watched(progress: Callable[[str], None]) -> Iterator[Watch]:
  """Watch for Ctrl-C and SIGTERM while the block runs.

  Outside the main thread, where Python allows no handlers, signals keep their
  meaning. With several processes JAX watches for SIGTERM, see
  `parallel.stop_together`, and Ctrl-C in training becomes one.

  Args:
    progress: Receives the answers, from another thread.
  """
  together = jax.process_count() > 1
  watch = Watch(progress, together=together)
  if threading.current_thread() is not threading.main_thread():
    yield watch
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)  # set_wakeup_fd requires it
  thread = threading.Thread(target=_answer, args=(reader, watch), daemon=True)
  # A shell makes background processes ignore Ctrl-C; that stays so.
  numbers = (signal.SIGINT,) if together else _NUMBERS
  heeded = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]
  handlers = {n: signal.signal(n, watch.handle) for n in heeded}
  before = signal.set_wakeup_fd(writer)
  thread.start()
  try:
    yield watch
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(before)
    os.close(writer)  # the thread reads the end of the pipe
    thread.join()
    os.close(reader)


def _answer(reader: int, watch: Watch) -> None:
  """Pass on each signal that arrives in a pipe until it is closed."""
  while numbers := os.read(reader, 1):
    if numbers[0] in _NUMBERS:  # others may have handlers of their own
      watch.arrive(numbers[0])

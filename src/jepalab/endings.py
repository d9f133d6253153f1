"""How a run ends that does not end well; without torch, so that the command line can know it at once."""

from __future__ import annotations


class DivergedError(ArithmeticError):
    """The loss stopped being a number."""


class InterruptedRunError(BaseException):
    """SIGTERM or Ctrl-C came; the run was saved first. Not an Exception, so that nothing mistakes it for a failure."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"Stopped by signal {number} {where}.")
        self.exit_code = 128 + number

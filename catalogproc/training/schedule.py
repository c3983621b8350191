"""When a training ends, and its learning rate until then: by steps, or by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from catalogproc.errors import JobError
from catalogproc.training.config import Settings

Clock = Callable[[], float]
"""Returns seconds, as :func:`time.monotonic`."""


class Schedule:
    """Learning rate and end of one training.

    With ``Settings.seconds`` both follow the clock: the rate has fallen to its minimum when the
    time is over, whatever the speed of the machine.

    Parameters
    ----------
    settings
        Settings of the optimisation.
    step, passed
        Steps that were done, and seconds that they took, before the training was resumed.
    processes
        Number of processes that train together.
    clock
        Source of time.

    Raises
    ------
    JobError
        Several processes would have to agree on the time.
    """

    def __init__(
        self,
        settings: Settings,
        step: int = 0,
        passed: float = 0.0,
        *,
        processes: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        if settings.seconds and processes > 1:
            raise JobError(
                "a training of a given time uses one process", found=f"{processes} processes",
                where="[training], seconds", advice="give steps instead",
            )  # fmt: skip
        self.first = step
        """Number of the first step to do."""
        self._settings, self._clock = settings, clock
        self._began = clock() - passed

    @property
    def passed(self) -> float:
        """Seconds since the training began, without interruptions."""
        return self._clock() - self._began

    def rate(self, step: int) -> float:
        """Return the learning rate.

        Parameters
        ----------
        step
            Number of the step, from 0.
        """
        limit = self._settings.seconds
        return self._settings.rate_at(step, min(1.0, self.passed / limit) if limit else None)

    def is_over(self, step: int) -> bool:
        """Return whether no further step is to be done.

        Parameters
        ----------
        step
            Number of steps done.
        """
        limit = self._settings.seconds
        return step >= self._settings.steps or (limit > 0 and self.passed >= limit)

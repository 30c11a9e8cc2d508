"""Long work of a broker, in slices: work that grows with what is stored, or with what a client asks for.

It knows jobs and steps: never what a job does. A *step* is about a microsecond of compiled code. A job is an iterator:
each ``next`` does a small piece of work, and gives the number of steps that it took. What always holds:

* whatever their number, the jobs of one turn take about ``STEPS`` steps together, and so does the work that begins in
  it;
* the jobs take turns, so that a long one delays a short one by no more than the number of jobs;
* small work ends in the call that starts it; only large work is interrupted by other work;
* a job that fails is dropped, and its exception leaves the call; the other jobs go on in the next turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, final

# Two milliseconds of compiled code, and about five times as much when the same files run uncompiled: far from the 50 ms
# that a turn may take, since the packets of the turn need time too. A larger share would make long work hardly faster:
# a busy node has a thousand turns a second.
STEPS: Final = 2048
_SHARE: Final = 512  # of one job, before it is the next one's turn


@final
class Work:
    """The jobs of one broker. ``left``: steps that are left in this turn for work that begins in it."""

    __slots__ = ("_jobs", "left")

    def __init__(self) -> None:
        self._jobs: deque[Iterator[int]] = deque()
        self.left = STEPS

    def __len__(self) -> int:
        """The number of jobs that are not finished."""
        return len(self._jobs)

    def start(self, job: Iterator[int]) -> None:
        """Do a job: at once as far as the steps of this turn reach, the rest in the next turns."""
        while self.left > 0:
            steps = next(job, 0)
            if not steps:
                return
            self.left -= steps
        self._jobs.append(job)

    def add(self, job: Iterator[int]) -> None:
        """Do a job from the end of this turn on."""
        self._jobs.append(job)

    def run(self) -> bool:
        """Continue the jobs at the end of a turn. Returns whether some are left for the next."""
        self.left = STEPS
        jobs = self._jobs
        if not jobs:
            return False
        steps = STEPS
        while jobs and steps > 0:
            job = jobs.popleft()
            used = _advance(job, min(_SHARE, steps))
            steps -= max(used, -used)
            if used > 0:
                jobs.append(job)
        return bool(jobs)


def _advance(job: Iterator[int], share: int) -> int:
    """Do about ``share`` steps of a job; returns how many it took, negative or 0 if the job has ended."""
    used = 0
    while used < share:
        steps = next(job, 0)
        if not steps:
            return -used
        used += steps
    return used

"""How long work is asked to stop."""


class Stop(BaseException):
    """Work was asked to stop. Not an `Exception`, so that no handler of errors swallows it.

    Args:
        reason: in words.
        status: exit status of the process.
    """

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.saved: str | None = None  # progress of the state that was saved, if one was


class StopRequest:
    """A request to stop, put by a signal handler in the thread that works.

    It waits for the next point from which work can go on, unless work is in a stretch that may be
    left at any moment, as all is before there is anything to lose. Only who insists is not kept
    waiting: a terminal that closes, or a process group that is ended, may well send several
    signals, and none of them must cut short the save that the first one asked for.
    """

    def __init__(self) -> None:
        self.pending: Stop | None = None
        self.immediate = True

    def ask(self, reason: str, status: int, *, insist: bool = False) -> None:
        """Ask to stop.

        Args:
            reason: in words.
            status: exit status of the process.
            insist: do not wait, even if that loses what was done since the last save.

        Raises:
            Stop: at once, where that loses nothing or someone insists.
        """
        first, self.pending = self.pending is None, self.pending or Stop(reason, status)
        if (first and self.immediate) or insist:
            raise self.pending

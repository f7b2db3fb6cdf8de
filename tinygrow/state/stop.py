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

    The first request waits for the next point from which work can go on, unless work is in a
    stretch that may be left at any moment, as all is before there is anything to lose; the second
    one does not wait.
    """

    def __init__(self) -> None:
        self.pending: Stop | None = None
        self.immediate = True

    def ask(self, reason: str, status: int) -> None:
        """Ask to stop.

        Raises:
            Stop: at once, where that loses nothing or someone insists.
        """
        first, self.pending = self.pending is None, self.pending or Stop(reason, status)
        if self.immediate or not first:
            raise self.pending

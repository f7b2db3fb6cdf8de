"""What stands for a keeper in the processes that work along with the first one."""

from pathlib import Path

from tinygrow.distributed import of_first
from tinygrow.state.keeper import Keeper, State


class Follower(Keeper):
    """Keeps nothing, and goes on from the state that the first process's `StateKeeper` has.

    Args:
        folder: where that one keeps it; is left alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state: State | None = None
        self._asked = False

    def restore(self) -> State | None:
        """Return the state that the first process goes on from; a second call, the same one."""
        if not self._asked:
            self._asked = True
            self._state = of_first(None)
        return self._state

"""The one error that users are meant to see: what is wrong, the value, the remedy."""


class TinygrowError(Exception):
    """An expected failure: bad input, a missing file, a broken model.

    The message is one line that says what is wrong, shows the offending value and names the
    remedy. Command lines print it without a traceback and exit with status 1.
    """


class SettingError(TinygrowError):
    """A setting is unknown, of the wrong type, or out of range."""

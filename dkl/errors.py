"""The exceptions that are messages to the user, shown without a traceback."""


class UserError(Exception):
    """Bad input, missing data or a wrong option; the message names the mend."""


class BusyError(UserError):
    """Another process is at it; the message says at what."""


class NotInstalledError(UserError):
    """An optional library is not there; the message says how to install it."""

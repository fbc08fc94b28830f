"""The one exception that is a message to the user, shown without a traceback."""


class UserError(Exception):
    """Bad input, missing data or a wrong option; the message names the mend."""

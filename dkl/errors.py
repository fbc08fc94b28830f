"""The one exception that is a message to the user: it says what is wrong and how to mend it, and no traceback is shown."""


class UserError(Exception):
    """Bad input, missing data or a wrong option; the message names the mend."""

"""The one exception for mistakes that the user of the program can mend."""


class UserError(ValueError):
    """A wrong setting or file; its one-line message names the value and the fix.

    `run.py` prints the message alone. Every other exception is a fault of ours and keeps its
    traceback.
    """

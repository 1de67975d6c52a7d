"""The one exception for mistakes that the user of the program can mend."""


def escape(text: str) -> str:
    """Escape line ends and what a terminal would obey: names in files come from anybody."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UserError(ValueError):
    """A wrong setting or file; its one-line message names the value and the fix.

    `run.py` prints the message alone. Every other exception is a fault of ours and keeps its
    traceback.
    """

    def __init__(self, message: str):
        # A loader worker's error is raised again with its traceback as the message, whose last line is the message.
        super().__init__(escape(message.rpartition(f"{__name__}.UserError: ")[2].strip()))

"""The one exception type that a user is meant to see."""


class UserError(Exception):
    """Something in the user's input, config or environment is wrong.

    The message says what, where (file, row, video, second), what was expected and how to fix it.
    The command line prints it without a trace and exits with status 2.
    """

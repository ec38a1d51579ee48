"""The one exception whose message is meant for the person at the keyboard."""


class LumiereError(ValueError):
    """Bad input or a missing resource, told in one line that says what to do.

    The command line prints the message and exits with code 2; library callers may catch it.
    """

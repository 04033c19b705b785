"""The one error that bad input raises, here and in the arrival schedule."""


class InputError(ValueError):
    """A setting or an input file cannot be used; the message is one line for the person who gave it.

    It names the option, says what is wrong with it and how to put it right.
    """

    def __init__(self, option: str, problem: str, fix: str) -> None:
        """Build the line `OPTION: PROBLEM; FIX`; line breaks inside the parts become spaces."""
        super().__init__(" ".join(f"{option}: {problem}; {fix}".split()))
        self.option = option

"""Error for settings and input files that cannot be used."""


class InputError(ValueError):
    """A setting or an input file cannot be used; the message is one line for its user.

    It names the option, the problem and the fix.
    """

    def __init__(self, option: str, problem: str, fix: str) -> None:
        """Build the line `OPTION: PROBLEM; FIX`; line breaks inside the parts become spaces."""
        super().__init__(" ".join(f"{option}: {problem}; {fix}".split()))
        self.option = option

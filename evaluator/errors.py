"""What a user can mend, each message one line."""


class EvaluatorError(Exception):
    """Bad input: which file, what was found, what is allowed. Ends a tool with exit code 2."""


class ToolError(Exception):
    """A tool that cannot run here; its reason stands in the table, and the other tools still count."""

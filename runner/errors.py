"""What ends a study early, and how."""


class InvalidInputError(Exception):
    """What the user asked for cannot be done; the message says the rule, what was given and what there is."""


class StudyFailedError(Exception):
    """Something failed while running; what was finished before it is on disk."""


class StudyInterruptedError(Exception):
    """A signal asked for an end; what was finished before it is on disk."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

"""The one kind of error that bad input raises."""


class BadInput(ValueError):
    """Something that came from outside is wrong.

    Attributes:
        thing: what is wrong, for example ``--share`` or ``jobs.yaml: spec.queue``.
        value: what was given.
        problem: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, thing: str, value: object, problem: str, remedy: str) -> None:
        self.thing, self.value, self.problem, self.remedy = thing, value, problem, remedy
        super().__init__(f"{thing}: {value!r} {problem}. {remedy}")

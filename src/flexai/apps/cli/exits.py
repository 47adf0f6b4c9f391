"""Exit codes; docs/reference/exit-codes.md says the same and a test compares them."""

OK = 0
REFUSED = 1
BAD_INPUT = 2
NO_POOL = 3
ALREADY_UP = 4
NOT_READY = 5
CHECK_FAILED = 6
NOT_STARTED = 125
CANNOT_EXECUTE = 126
NO_COMMAND = 127
INTERRUPTED = 130

MEANINGS = {
    OK: "done",
    REFUSED: "the pool refused, or the thing named does not exist",
    BAD_INPUT: "an option, file or setting is wrong; nothing was done",
    NO_POOL: "no pool answers",
    ALREADY_UP: "`up`: a pool runs on this state already",
    NOT_READY: "`up`: the pool did not become ready; the log named in the message says why",
    CHECK_FAILED: "`doctor`: a check failed; `bench`: a goal was missed and `--strict` was given",
    NOT_STARTED: "`run`, `wait`: FlexAI could not run or find the job, so there is no exit code of the command",
    CANNOT_EXECUTE: "`run`: the command was found but cannot be executed",
    NO_COMMAND: "`run`: the command was not found",
    INTERRUPTED: "interrupted by Ctrl-C",
}

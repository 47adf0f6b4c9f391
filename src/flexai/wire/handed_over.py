"""Commands that have somebody else start what they name: it would run outside of the job that holds its slice.

That is a daemon of containers, a batch system, a cluster, systemd, or the server of a terminal multiplexer. It is read
from the words alone, through what commonly stands before a command (``env``, ``sudo``, ``nohup``) and through scripts
given to a shell (``sh -c '...'``). What a program decides by itself cannot be read there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PROGRAM = "Run the program itself"


class HandedOver(NamedTuple):
    """Who would start the work.

    Attributes:
        client: the command that asks for it.
        to: who is asked.
        remedy: what to do instead.
    """

    client: str
    to: str
    remedy: str = _PROGRAM

    @property
    def problem(self) -> str:
        """What is wrong with it, as the end of a sentence that begins with the client."""
        return f"has {self.to} start what it names, outside of this job, where its slice does not hold"


class _Client:
    """Words one of which says that something is to be started (none: it always does), or that it is not."""

    # Neither is a dataclass: `flexai run` makes them each time, which takes a millisecond less.
    def __init__(
        self, to: str, starts: frozenset[str] = frozenset(), remedy: str = _PROGRAM, unless: tuple[str, ...] = ()
    ) -> None:
        self.to, self.starts, self.remedy, self.unless = to, starts, remedy, unless


_CONTAINERS = frozenset({"run", "exec", "start", "restart", "create", "up", "play", "runp", "deploy"})
_WITHOUT = "Run the program itself, without a container"
_CLIENTS = {
    **dict.fromkeys(
        ("docker", "podman", "nerdctl", "ctr", "crictl", "docker-compose", "podman-compose", "lxc", "incus"),
        _Client("a daemon of containers", _CONTAINERS, _WITHOUT),
    ),
    **dict.fromkeys(("srun", "sbatch", "salloc"), _Client("Slurm")),
    **dict.fromkeys(("qsub", "bsub", "condor_submit"), _Client("a batch system")),
    **dict.fromkeys(
        ("kubectl", "oc"), _Client("a cluster", frozenset({"run", "exec", "debug", "create", "apply", "replace"}))
    ),
    "systemd-run": _Client("systemd"),
    **dict.fromkeys(("at", "batch"), _Client("the at daemon", unless=("-l", "-r", "-d", "-c"))),
    # Its first session is forked by the client, and so held; any other by the server, which may be of another job.
    "tmux": _Client(
        "a server that may run already",
        remedy='Run the program itself, or give tmux a server of its own: tmux -L "job-$FLEXAI_JOB_ID"',
        unless=("-L", "-S"),
    ),
    "screen": _Client("a session that runs already", frozenset({"-X", "-x", "-r", "-R", "-rd", "-dr", "-RR", "-dRR"})),
}
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_KEYWORDS = frozenset({"!", "{", "if", "then", "elif", "else", "while", "until", "do", "time"})
_BREAKS = frozenset(";&|()\n")
# Commands that run the command after them: their options that take a value, and how many words of their own come first.
_BEFORE: dict[str, tuple[frozenset[str], int]] = {
    "env": (frozenset({"-u", "--unset", "-C", "--chdir"}), 0),
    "sudo": (frozenset({"-u", "--user", "-g", "--group", "-h", "-p", "-C", "-D", "-r", "-t", "-T"}), 0),
    "doas": (frozenset({"-u", "-C"}), 0),
    "nohup": (frozenset(), 0),
    "setsid": (frozenset(), 0),
    "exec": (frozenset({"-a"}), 0),
    "command": (frozenset(), 0),
    "time": (frozenset({"-f", "--format", "-o", "--output"}), 0),
    "nice": (frozenset({"-n", "--adjustment"}), 0),
    "ionice": (frozenset({"-c", "--class", "-n", "--classdata"}), 0),
    "stdbuf": (frozenset({"-i", "-o", "-e"}), 0),
    "timeout": (frozenset({"-k", "--kill-after", "-s", "--signal"}), 1),
    "taskset": (frozenset(), 1),
    "numactl": (frozenset({"-C", "-N", "-m", "-i", "-p"}), 0),
    "xargs": (frozenset({"-I", "-n", "-P", "-L", "-d", "-a", "-s", "-E"}), 0),
}
_DEEPEST = 8


def handed_over(command: Sequence[str], depth: int = 0) -> HandedOver | None:
    """Who would start what this command names, where it is not the command; None when that is not seen."""
    words = list(command)
    while words:
        path, _, program = words.pop(0).rpartition("/")
        if program in _CLIENTS and (path.startswith("/") or not path):  # ./batch is somebody's own
            return _asked(program, _CLIENTS[program], words)
        if program in _SHELLS and depth < _DEEPEST:
            return next((found for one in _scripts(words) if (found := handed_over(one, depth + 1))), None)
        if program not in _BEFORE:
            return None
        valued, n_own = _BEFORE[program]
        if program == "env" and (split := _split_string(words)):
            words = split
            continue
        while words and (words[0].startswith("-") or _is_assignment(words[0])):
            word = words.pop(0)
            if word == "--":
                break
            if word in valued and words:
                words.pop(0)
        del words[:n_own]
    return None


def _asked(program: str, client: _Client, words: Sequence[str]) -> HandedOver | None:
    if any(word.startswith(client.unless) for word in words):
        return None
    if {"--help", "--version"} & set(words) or (client.starts and not client.starts & set(words)):
        return None
    return HandedOver(program, client.to, client.remedy)


def _is_assignment(word: str) -> bool:
    return word.partition("=")[1] == "=" and word.partition("=")[0].isidentifier()


def _split_string(words: Sequence[str]) -> list[str]:
    """The words after ``env -S 'a b c'``; empty when there is no such option."""
    for at, word in enumerate(words):
        if word in {"-S", "--split-string"} and at + 1 < len(words):
            return words[at + 1].split() + list(words[at + 2 :])
        if word.startswith("--split-string="):
            return word.partition("=")[2].split() + list(words[at + 1 :])
        if not word.startswith("-") and not _is_assignment(word):
            break
    return []


def _scripts(words: Sequence[str]) -> Iterator[list[str]]:
    """The simple commands of a shell's ``-c`` script."""
    at, is_script = 0, False
    while at < len(words) and words[at].startswith(("-", "+")):
        word = words[at]
        is_script = is_script or ("c" in word and not word.startswith(("--", "+")))
        at += 2 if word in {"-o", "+o", "-O", "+O", "--rcfile", "--init-file"} else 1
    if is_script and at < len(words):
        yield from _simple_commands(words[at])


def _simple_commands(script: str) -> Iterator[list[str]]:
    import shlex  # noqa: PLC0415  `flexai run` starts without it

    lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars="".join(_BREAKS))
    lexer.whitespace, lexer.commenters = " \t\r", ""
    words: list[str] = []
    is_comment = False
    try:
        for word in lexer:
            if set(word) <= _BREAKS:
                is_comment = is_comment and "\n" not in word
                yield words
                words = []
            elif is_comment or word.startswith("#"):
                is_comment = True
            elif words or not (word in _KEYWORDS or _is_assignment(word)):
                words.append(word)
    except ValueError:
        return  # quotes that do not close: the shell will say so
    yield words

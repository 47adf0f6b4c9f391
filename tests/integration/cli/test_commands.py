"""The commands against a scripted pool: JSON for programs, tables for people, errors with a remedy, exit codes."""

import json
import re
import subprocess
import sys

import fake_pool
import flexai_native
import pytest

PENDING, RUNNING = fake_pool.job("8"), fake_pool.job("7", "running", started_at_ms=1_700_000_001_000, reason=None)
DONE = fake_pool.job("6", "failed", started_at_ms=1, finished_at_ms=5001, exit_code=3, cause="exit code 3", reason=None)
QUEUE = {
    "name": "team-a", "parent": "", "quota_milli": 2000, "limit_milli": -1, "weight": 1000, "priority": 0, "users": [],
    "user_limit_milli": -1, "n_running": 1, "n_waiting": 2, "held_milli": 300, "held_bytes": 1,
}  # fmt: skip
EXPLAINED = {
    "state": "queued", "reason": PENDING["reason"], "position": 3, "queue": QUEUE, "waits_for": [],
    "cards": [{"index": 0, "uuid": "SIM-0", "free_milli": 200, "free_bytes": 1 << 30, "fits": False, "says": "no"}],
    "job": PENDING, "history": [],
}  # fmt: skip
TOP = {
    "status": fake_pool.STATUS,
    "devices": [fake_pool.CARD],
    "queues": [QUEUE],
    "jobs": [RUNNING, PENDING],
    "n_jobs": 9,
}


def page(*items):
    return {"items": list(items), "cursor": None}


ANSWERS = {
    ("GET", "/v1/jobs"): page(RUNNING, PENDING, DONE),
    ("GET", "/v1/jobs/6/wait"): DONE,
    ("GET", "/v1/jobs/7/wait"): {**RUNNING, "state": "succeeded", "exit_code": 0},
    ("GET", "/v1/jobs/7/logs"): b"line one\nline two\n",
    ("GET", "/v1/jobs/8/explain"): EXPLAINED,
    ("GET", "/v1/history"): page(
        {
            "seq": 1,
            "at_ms": 1_700_000_000_000,
            "job_id": "7",
            "kind": "started",
            "pid": 5,
            "exit_code": None,
            "grants": [{"limit_milli": -1, "compute_milli": 300, "memory_bytes": 16 << 30}],
        }
    ),
    ("GET", "/v1/usage"): {
        "items": [{"user": "ann", "queue": "team-a", "card_hours": 1.5, "memory_gib_hours": 3.0, "n_jobs": 2}],
        "cursor": None,
    },
    ("GET", "/v1/queues"): page(QUEUE),
    ("PUT", "/v1/queues/team-a"): QUEUE,
    ("DELETE", "/v1/queues/team-a"): {},
    ("GET", "/v1/devices"): page(fake_pool.CARD),
    ("POST", "/v1/devices/0/cordon"): {**fake_pool.CARD, "cordoned": True},
    ("GET", "/v1/status"): fake_pool.STATUS,
    ("GET", "/v1/top"): TOP,
    ("GET", "/v1/doctor"): {"checks": [{"name": "shim", "ok": True, "detail": "loads", "remedy": ""}]},
    ("POST", "/v1/jobs/8/hold"): {**PENDING, "state": "held"},
    ("POST", "/v1/jobs/7/resize"): RUNNING,
    ("POST", "/v1/manifests"): {"ids": ["9"], "queues": ["team-a"], "notes": ["image: not used by the embedded pool"]},
}
SHOWN = [
    (("jobs",), ["8", "team-a", "queued", "30%", "16 GiB", "2 of 4 cards have 30% left."]),
    (("devices",), ["h200", "hwslice", "30%", "141 GiB", "simulated", "train", "60%", "30.1%", "5 GiB"]),
    (("status",), ["1 running, 2 queued", "without privileges", "no cgroups"]),
    (("top", "--once"), ["simulated", "█", "train", "5 GiB", "guaranteed", "and 7 more"]),
    (("explain", "8"), ["NotEnoughCompute", "number 3 in its line", "20%"]),
    (("history",), ["started", "pid 5, grants limit none, compute 30%, memory 16 GiB"]),
    (("usage", "--since", "24h"), ["ann", "1.5000"]),
    (("queue", "list"), ["team-a", "2 cards", "30%", "all"]),
    (("queue", "set", "team-a", "--quota", "2.5"), ["team-a set"]),
    (("queue", "delete", "team-a"), ["deleted"]),
    (("cordon", "0"), ["card 0: cordoned"]),
    (("doctor",), ["ok", "shim"]),
    (("hold", "8"), ["8: held"]),
    (("resize", "7", "--share", "40%"), ["7: 40%"]),
    (("resize", "7", "--role", "worker", "--members", "2"), ["7: 2 members of role worker"]),
    (("logs", "7"), ["line one\nline two\n"]),
    (("completion", "zsh"), ["#compdef flexai"]),
]


@pytest.fixture(autouse=True)
def answers(pool):
    pool.answers.update(ANSWERS)


@pytest.mark.parametrize(("words", "texts"), SHOWN, ids=lambda value: " ".join(value)[:20])
def test_a_table_shows_what_people_look_for_and_no_colour_in_a_pipe(command, words, texts):
    result = command(*words)
    assert result.returncode == 0, result.stderr
    for text in texts:
        assert text in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("words", [words for words, _ in SHOWN], ids=lambda value: " ".join(value)[:20])
def test_json_is_one_document_and_nothing_else(command, words):
    result = command(*words, "--json")
    assert result.returncode == 0, result.stderr
    assert isinstance(json.loads(result.stdout), dict)
    assert result.stderr == ""


def test_a_submission_prints_its_ids_and_carries_directory_and_environment(pool, command, environment, tmp_path):
    environment["MINE"] = "kept"
    result = command(
        "submit", "--share", "30%", "-m", "1Gi", "--array", "0-3", "--after", "5", "--after", "6", "--held",
        "--members", "2", "--checkpointable", "--no-preempt", "--priority", "-5", "--model", "h200",
        "--", "echo", "--share",
    )  # fmt: skip
    assert result.stdout == "7\n", result.stderr
    (body,) = pool.asked_for("/v1/jobs")
    assert body.pop("env")["MINE"] == "kept"
    assert body == {
        "kind": "submit", "command": ["echo", "--share"], "cwd": str(tmp_path), "name": "echo", "queue": "default",
        "compute_milli": 300, "memory_bytes": 1 << 30, "array": "0-3", "after": ["5", "6"], "held": True,
        "n_members": 2, "checkpointable": True, "preemptible": False, "priority": -5, "models": ["h200"],
    }  # fmt: skip


def test_what_no_card_of_the_pool_can_give_is_said_at_once(pool, command):
    reason = {"code": "TooLarge", "message": "It asks for 3 cards; the pool cannot give that."}
    pool.answers["POST", "/v1/jobs"] = {"ids": ["7"], "items": [fake_pool.job("7", reason=reason)]}
    result = command("submit", "--share", "100%", "--devices", "3", "--", "true")
    assert (result.returncode, result.stdout) == (0, "7\n")
    assert len(pool.asked) == 1, "the answer says it"
    assert result.stderr == f"note: job 7 waits: {reason['message']} Take it back: `flexai cancel 7`\n"
    pool.answers["POST", "/v1/jobs"]["items"] = [fake_pool.job("7")]  # for want of compute that others hold now
    assert command("submit", "--share", "100%", "--", "true").stderr == ""


def test_a_manifest_is_sent_as_it_is_and_what_is_not_used_is_said(pool, command, tmp_path):
    (tmp_path / "job.yaml").write_text("kind: Pod\n")
    result = command("submit", "-f", "job.yaml")
    assert result.stdout == "9\n"
    assert "image: not used" in result.stderr
    assert pool.asked_for("/v1/manifests")[0]["yaml"] == "kind: Pod\n"
    assert command("submit", "-f", "-", input="kind: Job\n").returncode == 0
    assert pool.asked_for("/v1/manifests")[1]["yaml"] == "kind: Job\n"


def test_wait_ends_with_the_first_exit_code_that_is_not_zero(command):
    assert command("wait", "7").returncode == 0
    assert command("wait", "7", "6").returncode == 3


def test_wait_gives_up_after_its_timeout(pool, command):
    pool.answers["GET", "/v1/jobs/7/wait"] = RUNNING
    result = command("wait", "7", "--timeout", "0.3")
    assert result.returncode == 125
    assert "not ended within 0.3 s" in result.stderr


def test_changing_one_thing_of_a_queue_keeps_the_others(pool, command):
    assert command("queue", "set", "team-a", "--limit", "none", "--user", "ann", "--user", "bob").returncode == 0
    (body,) = pool.asked_for("/v1/queues/team-a")
    assert body == {
        "parent": "", "quota_milli": 2000, "limit_milli": -1, "weight": 1000, "priority": 0, "users": ["ann", "bob"],
        "user_limit_milli": -1,
    }  # fmt: skip


def test_changing_one_thing_of_a_queue_keeps_its_terms_for_classes_of_cards(pool, command):
    terms = [{"device_class": "H200", "quota_milli": 1000, "limit_milli": -1, "weight": 1000, "priority": 0}]
    pool.answers["GET", "/v1/queues"] = {"items": [QUEUE | {"classes": terms}]}
    assert command("queue", "set", "team-a", "--priority", "3").returncode == 0
    (body,) = pool.asked_for("/v1/queues/team-a")
    assert body["classes"] == terms


def test_terms_for_one_class_of_cards_are_set_changed_and_forgotten(pool, command):
    quarter = {"device_class": "h100", "quota_milli": 250, "limit_milli": -1, "weight": 1000, "priority": 0}
    pool.answers["GET", "/v1/queues"] = {"items": [QUEUE | {"classes": [quarter]}]}
    for words in (
        ("--model", "h200", "--quota", "2", "--limit", "4", "--weight", "1.5", "--user", "ann"),
        ("--model", "h100", "--priority", "3", "--limit", "50%"),
        ("--model", "h100", "--forget"),
    ):
        done = command("queue", "set", "team-a", *words)
        assert done.returncode == 0, done.stderr
        assert f"team-a set for {words[1]}" in done.stdout
        assert ("no card 'h100' now; it has: h200" in done.stderr) == (words[1] == "h100")
    fresh, changed, forgotten = pool.asked_for("/v1/queues/team-a")
    h200 = {"device_class": "h200", "quota_milli": 2000, "limit_milli": 4000, "weight": 1500}
    assert fresh["classes"] == [quarter, h200]
    assert (fresh["quota_milli"], fresh["users"]) == (2000, ["ann"])
    assert changed["classes"] == [quarter | {"limit_milli": 500, "priority": 3}]
    assert forgotten["classes"] == []
    assert "h100" in command("queue", "list").stdout


@pytest.mark.parametrize(("given", "milli"), [("2", 2000), ("0.5", 500), ("0", 0), ("1.001", 1001), ("1000000", 10**9)])
def test_the_weight_of_a_queue_is_told_as_a_multiple_of_the_usual_one(pool, command, given, milli):
    assert command("queue", "set", "team-a", "--weight", given).returncode == 0
    (body,) = pool.asked_for("/v1/queues/team-a")
    assert body["weight"] == milli
    pool.answers["GET", "/v1/queues"] = {"items": [QUEUE | {"weight": milli}]}
    table = command("queue", "list").stdout
    row = next(line for line in table.splitlines() if "team-a" in line)
    assert given in row.split(), table


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("explain", "99"), 1, ["no /v1/jobs/99/explain", "flexai jobs"]),
        (("explain", "x/../y"), 2, ["'x/../y' is not a job id", "17"]),
        (("jobs", "--limit", "0"), 2, ["--limit", "flexai jobs --help"]),
        (("nonsense",), 2, ["nonsense", "--help"]),
        (("submit", "--share", "150%", "true"), 2, ["150%", "0.1% to 100%"]),
        (("submit", "--share", "30%", "--limit", "20%", "-m", "1Gi", "true"), 2, ["--limit", "20%", "below the share"]),
        (("submit", "no-such-program"), 2, ["no-such-program", "does not exist", "PATH"]),
        (("submit", "docker", "run"), 2, ["docker", "a daemon of containers"]),
        (("submit",), 2, ["command", "missing"]),
        (("submit", "-f", "missing.yaml"), 2, ["missing.yaml", "No such file"]),
        (("submit", "--devices", "two", "true"), 2, ["--devices", "two"]),
        (("resize", "7", "--share", "0"), 2, ["--share", "'0'"]),
        (("resize", "7"), 2, ["--share", "missing", "--members 2"]),
        (("resize", "7", "--share", "40%", "--members", "2"), 2, ["--members", "together with --share"]),
        (("resize", "7", "--members", "2", "--limit", "40%"), 2, ["--limit", "--share too"]),
        (("queue", "set", "team-a", "--quota", "much"), 2, ["--quota", "much"]),
        (("queue", "set", "team-a", "--weight", "heavy"), 2, ["--weight", "'heavy'", "2 for twice the usual"]),
        (("queue", "set", "team-a", "--weight", "-1"), 2, ["--weight", "'-1'", "0 to 1000000"]),
        (("queue", "set", "team-a", "--weight", "0.0005"), 2, ["--weight", "'0.0005'", "steps of 0.001"]),
        (("queue", "set", "team-a", "--weight", "1000000.5"), 2, ["--weight", "0 to 1000000"]),
        (("queue", "set", "a b"), 2, ["queue", "a b", "letters"]),
        (("queue", "set", "team-a", "--model", "h200"), 2, ["--model", "h200", "no terms", "--quota"]),
        (("queue", "set", "team-a", "--model", "h200", "--forget"), 2, ["h200", "no terms in queue team-a", "none"]),
        (("queue", "set", "team-a", "--forget"), 2, ["--forget", "without --model"]),
        (("queue", "set", "team-a", "--model", "x", "--quota", "1", "--forget"), 2, ["--forget", "beside new terms"]),
        (("usage", "--since", "ever"), 2, ["--since", "ever"]),
        (("completion", "tcsh"), 2, ["tcsh", "bash, zsh or fish"]),
        (("down", "--jobs", "burn"), 2, ["--jobs", "burn", "keep or cancel"]),
        (("up", "--simulate", "h200"), 2, ["--simulate", "h200", "h200:2"]),
        (("up", "--simulate", "h200:0"), 2, ["--simulate", "h200:0"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:30] if isinstance(value, tuple) else None,
)
def test_an_error_names_thing_value_and_remedy_in_one_line(command, words, code, says):
    result = command(*words)
    assert result.returncode == code, result.stderr
    assert len(result.stderr.splitlines()) == 1
    for text in says:
        assert text in result.stderr
    asked = (
        json.loads(command(words[0], "--json", *words[1:]).stderr) if words[0] not in {"queue", "nonsense"} else None
    )
    if asked:
        assert asked["error"]["exit_code"] == code


def test_no_summary_of_a_command_is_cut_at_80_columns(flexai, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = flexai("--help").stdout
    assert "completion" in told
    assert "..." not in told.partition("Commands:")[2]


@pytest.mark.parametrize("name", ["bench", "record", "replay", "simulate"])
def test_apps_of_their_own_are_misused_in_one_line_as_all_commands(flexai, name):
    done = flexai(name)
    assert done.returncode == 2
    assert done.stderr.startswith(f"flexai {name}: Missing argument")
    assert done.stderr.endswith(f"`flexai {name} --help` lists what there is\n")


def test_no_pool_and_a_stale_socket_are_told_apart(pool, command, run_dir):
    pool.close()
    result = command("jobs")
    assert result.returncode == 3
    assert "stale" in result.stderr
    (run_dir / "pool.sock").unlink()
    assert "no such socket" in command("jobs").stderr
    assert "flexai up" in command("jobs").stderr


def test_a_failed_check_is_an_exit_code(pool, command):
    check = {"name": "shim", "ok": False, "detail": "does not load", "remedy": "run make install"}
    pool.answers["GET", "/v1/doctor"] = {"checks": [check]}
    result = command("doctor")
    assert result.returncode == 6
    assert "run make install" in result.stdout


def test_doctor_without_a_pool_tells_of_the_machine_and_of_the_next_step(pool, environment, command, run_dir):
    pool.close()
    (run_dir / "pool.sock").unlink()
    socket = run_dir / "card"
    words = [flexai_native.program("flexai-simcard"), "--socket", socket, "--cards", "h200:1"]
    environment |= {  # found by the loader, as the machine's own driver is
        "FLEXAI_SIMCARD": str(socket), "LD_LIBRARY_PATH": str(flexai_native.library("simcard/libcuda.so.1").parent),
    }  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE) as daemon:
        daemon.stdout.readline()
        result = command("doctor", "--json")
        daemon.kill()
    assert result.returncode == 3
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert "NVIDIA H200 (simulated)" in checks["cards"]["detail"]
    assert "simulated" in checks["driver version"]["detail"]
    assert {"root", "cgroups", "shim", "MIG", "confidential computing"} <= checks.keys()
    assert not checks["pool"]["ok"]
    assert "no such socket" in checks["pool"]["detail"]
    assert "flexai up" in checks["pool"]["remedy"]


def test_a_reader_that_leaves_is_no_error(environment, tmp_path):
    script = f"{sys.executable} -m flexai.apps.cli jobs 2>err | true; test ! -s err"
    assert subprocess.run(["sh", "-c", script], env=environment, cwd=tmp_path, check=False).returncode == 0


def test_the_version_of_both_parts_is_told(flexai):
    result = flexai("--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"flexai \d+\.\d+\.\d+, native part \d+\.\d+\.\d+\n", result.stdout)


def test_completion_offers_commands_and_options(flexai, environment):
    environment |= {"_FLEXAI_COMPLETE": "complete_bash", "COMP_WORDS": "flexai que", "COMP_CWORD": "1"}
    assert flexai().stdout.split() == ["queue"]
    environment |= {"COMP_WORDS": "flexai run --sh", "COMP_CWORD": "2"}
    assert flexai().stdout.split() == ["--share"]


def test_of_several_jobs_one_that_is_refused_does_not_keep_the_others_from_it(pool, command):
    result = command("cancel", "99", "7")
    assert result.returncode == 1
    assert result.stdout.startswith("7: ")
    assert "99" in result.stderr
    asked = command("cancel", "--json", "99", "7")
    assert (asked.returncode, asked.stderr) == (1, "")
    document = json.loads(asked.stdout)
    assert [error["name"] for error in document["errors"]] == ["99"]
    assert len(document["items"]) == 1


def test_a_list_without_jobs_says_so_and_of_what(pool, command):
    pool.answers["GET", "/v1/jobs"] = page()
    assert command("jobs").stdout == "no jobs\n"
    assert (
        command("jobs", "--state", "final", "--queue", "team-a").stdout
        == "no jobs of state 'final' and queue 'team-a'\n"
    )

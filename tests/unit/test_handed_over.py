"""Work that is handed to somebody else is seen, through wrappers and shells; words that only look like it are not."""

import shlex

import pytest

from flexai.wire.handed_over import handed_over

HANDED = [
    (["docker", "run", "image"], "docker"),
    (["/usr/bin/docker", "--context", "far", "run", "image"], "docker"),
    (["docker", "compose", "up"], "docker"),
    (["docker-compose", "up", "-d"], "docker-compose"),
    (["podman", "exec", "box", "python"], "podman"),
    (["ctr", "-n", "k8s.io", "task", "start", "x"], "ctr"),
    (["sudo", "-E", "podman", "run", "image"], "podman"),
    (["sudo", "-u", "root", "docker", "run", "image"], "docker"),
    (["env", "-u", "HOME", "A=1", "B=", "docker", "run", "image"], "docker"),
    (["env", "-S", "docker run image"], "docker"),
    (["nohup", "nice", "-n", "5", "docker", "run", "image"], "docker"),
    (["timeout", "-k", "5", "60", "docker", "run", "image"], "docker"),
    (["stdbuf", "-oL", "docker", "run", "image"], "docker"),
    (["xargs", "-n", "1", "docker", "run"], "docker"),
    (["sh", "-c", "docker run image"], "docker"),
    (["/bin/bash", "-lc", "cd /tmp && docker run image"], "docker"),
    (["bash", "-e", "-o", "pipefail", "-c", "docker run image | tee log"], "docker"),
    (["sh", "-c", "echo hello; A=1 docker run image"], "docker"),
    (["sh", "-c", "set -e\n# docker\ndocker \\\n  run image"], "docker"),
    (["sh", "-c", "if true; then exec docker run image; fi"], "docker"),
    (["sh", "-c", "while ! docker run image; do sleep 1; done"], "docker"),
    (["sh", "-c", "(docker run image) & wait"], "docker"),
    (["sh", "-c", "id=$(docker run -d image)"], "docker"),
    (["sudo", "sh", "-c", "sh -c 'docker run image'"], "docker"),
    (["nohup", "bash", "-c", "nerdctl run image", "name"], "nerdctl"),
    (["incus", "exec", "box", "--", "python"], "incus"),
    (["srun", "--gres=gpu:1", "python", "train.py"], "srun"),
    (["sh", "-c", "cd /data && sbatch train.sh"], "sbatch"),
    (["qsub", "train.sh"], "qsub"),
    (["kubectl", "-n", "lab", "exec", "pod", "--", "python"], "kubectl"),
    (["kubectl", "apply", "-f", "job.yaml"], "kubectl"),
    (["systemd-run", "--user", "--scope", "python", "train.py"], "systemd-run"),
    (["sh", "-c", "echo python train.py | at now"], "at"),
    (["/usr/bin/batch"], "batch"),
    (["tmux", "new-session", "-d", "python train.py"], "tmux"),
    (["tmux", "send-keys", "python train.py", "Enter"], "tmux"),
    (["screen", "-S", "old", "-X", "stuff", "python train.py"], "screen"),
]
NOT_HANDED = [
    ["python", "docker_stats.py"],
    ["echo", "docker", "run"],
    ["docker", "ps"],
    ["docker"],
    ["./run", "docker"],
    ["env"],
    ["env", "docker=run", "python", "train.py"],
    ["python", "-c", "print('docker run')"],
    ["sh", "-c", "echo docker run"],
    ["sh", "-c", "echo 'docker run'"],
    ["sh", "-c", "echo '; docker run'"],
    ["sh", "-c", "# docker run\npython train.py # ; docker run"],
    ["sh", "-c", "docker_run=1 python train.py run"],
    ["sh", "-c", "python train.py 'unclosed; docker run"],
    ["sh", "-c"],
    ["sh", "docker", "run"],
    ["bash", "-c", "grep -r docker run"],
    ["timeout", "60", "python", "docker", "run"],
    ["./batch", "run"],
    ["scripts/at"],
    ["srun", "--help"],
    ["kubectl", "get", "pods"],
    ["at", "-l"],
    ["tmux", "-L", "mine", "new-session", "python"],
    ["tmux", "-Lmine"],
    ["screen", "-dmS", "new", "python", "train.py"],
    ["apptainer", "exec", "image.sif", "python"],
]


@pytest.mark.parametrize(
    ("command", "client"), HANDED, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_work_handed_to_a_daemon_is_seen(command, client):
    handed = handed_over(command)
    assert handed is not None
    assert handed.client == client
    assert "outside of this job" in handed.problem


@pytest.mark.parametrize("command", NOT_HANDED, ids=" ".join)
def test_words_that_only_look_like_it_are_not(command):
    assert handed_over(command) is None


def test_shells_within_shells_come_to_an_end():
    script = "docker run x"
    for _ in range(5):
        script = shlex.join(["sh", "-c", script])
    assert handed_over(["sh", "-c", script]).client == "docker"
    for _ in range(4):
        script = shlex.join(["sh", "-c", script])
    assert handed_over(["sh", "-c", script]) is None

"""Manifests: what they mean here, what is named, what is refused."""

import pytest

from flexai.model import ClassTerms, TenantClass
from flexai.wire.api import decode_submission, encode_submission
from flexai.wire.errors import BadInput
from flexai.wire.manifest import decode_manifest

HERE = {"cwd": "/home/ada", "env": {"HOME": "/home/ada"}}
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: train
  annotations: {flexai.io/limit: "60%", flexai.io/class: best-effort, flexai.io/time-limit: 2h, acme.io/x: y}
  labels: {flexai.io/queue: lab}
spec:
  restartPolicy: OnFailure
  volumes: []
  containers:
  - name: main
    image: torch:2
    command: [python, "$(SCRIPT)"]
    args: ["$$(SCRIPT)", "$(UNKNOWN)"]
    env: [{name: SCRIPT, value: train.py}]
    resources:
      limits: {flexai.io/xpu: 2, flexai.io/cores: 30, flexai.io/memory: 16Gi, cpu: 500m, memory: 4Gi}
"""


def test_a_pod_becomes_a_job_and_what_is_not_used_is_named():
    manifest = decode_manifest(POD, HERE)
    (job,) = manifest.submissions
    assert (job.name, job.queue, job.cwd) == ("train", "lab", "/home/ada")
    assert job.command == ("python", "train.py", "$(SCRIPT)", "$(UNKNOWN)")
    assert job.env == {"HOME": "/home/ada", "SCRIPT": "train.py"}
    request = job.request
    assert (request.n_devices, request.compute_milli, request.limit_milli) == (2, 300, 600)
    assert (request.memory_bytes, request.tenant_class) == (16 << 30, TenantClass.BEST_EFFORT)
    assert (job.cpu_milli, job.ram_bytes, job.time_limit_ms) == (500, 4 << 30, 7_200_000)
    named = "\n".join(manifest.notes)
    for word in ("image", "spec.volumes", "restartPolicy", "acme.io/x"):
        assert f"Pod train: {word}" in named or word in named
    assert len(manifest.notes) == 4


def test_an_indexed_job_becomes_an_array_and_a_suspended_one_is_held():
    text = POD.replace("v1\nkind: Pod", "batch/v1\nkind: Job")
    head, _, spec = text.partition("spec:\n")
    body = "\n".join("    " + line for line in spec.splitlines())
    text = f"{head}spec:\n  completions: 5\n  parallelism: 2\n  suspend: true\n  template:\n    spec:\n{body}"
    manifest = decode_manifest(text, HERE)
    (job,) = manifest.submissions
    assert job.array == (0, 1, 2, 3, 4)
    assert job.held
    assert any("parallelism" in note for note in manifest.notes)


def test_a_pod_group_is_one_job_whose_members_start_together():
    member = POD.replace("acme.io/x: y", "flexai.io/pod-group: gang")
    group = "apiVersion: flexai.io/v1alpha1\nkind: PodGroup\nmetadata: {name: gang}\nspec: {minMember: 2, queue: big}\n"
    manifest = decode_manifest("---".join([group, member, member.replace("train\n", "train-1\n", 1), member]), HERE)
    (job,) = manifest.submissions
    assert (job.name, job.n_members, job.min_member, job.queue) == ("gang", 3, 2, "big")
    with pytest.raises(BadInput, match="differs between its members"):
        decode_manifest("---".join([group, member, member.replace("16Gi", "8Gi")]), HERE)
    with pytest.raises(BadInput, match="not in this manifest"):
        decode_manifest(member, HERE)
    with pytest.raises(BadInput, match="has no members"):
        decode_manifest(group, HERE)
    more = group.replace("minMember: 2", "minMember: 4")
    with pytest.raises(BadInput, match="is more than its 3 members: it would never start"):
        decode_manifest("---".join([more, member, member.replace("train\n", "train-1\n", 1), member]), HERE)


CLASSES = """apiVersion: flexai.io/v1
kind: Queue
metadata: {name: team-a}
spec:
  weight: 3000
  classes:
    NVIDIA H200: {quotaCards: 2, limitCards: 4}
    L40S: {limitCards: 0, weight: 500}
"""


def test_a_queue_has_terms_for_single_classes_of_cards():
    (queue,) = decode_manifest(CLASSES, HERE).queues
    assert queue.classes == (ClassTerms("NVIDIA H200", 2000, 4000, 3000), ClassTerms("L40S", 0, 0, 500))
    with pytest.raises(BadInput, match=r"NVIDIA H200\.limit_milli.*under the queue's quota"):
        decode_manifest(CLASSES.replace("limitCards: 4", "limitCards: 1"), HERE)


def test_a_queue_counts_in_cards():
    text = """
apiVersion: flexai.io/v1alpha1
kind: Queue
metadata: {name: lab}
spec: {quotaCards: 1.5, limitCards: 4, weight: 2000, users: [ada], userLimitCards: 2, borrow: never}
"""
    manifest = decode_manifest(text, HERE)
    (queue,) = manifest.queues
    assert (queue.quota_milli, queue.limit_milli, queue.user_limit_milli, queue.users) == (1500, 4000, 2000, ("ada",))
    assert manifest.notes == ("Queue lab: spec.borrow: not used by the embedded pool",)


def test_other_vendors_names_are_taken_and_noted():
    limits = "{nvidia.com/gpu: 1, nvidia.com/gpucores: 25, nvidia.com/gpumem: 3000}"
    start = POD.index("limits: ") + len("limits: ")
    manifest = decode_manifest(POD[:start] + limits + "\n", HERE)
    request = manifest.submissions[0].request
    assert (request.compute_milli, request.memory_bytes) == (250, 3000 << 20)
    assert sum("taken for flexai.io/" in note for note in manifest.notes) == 3


@pytest.mark.parametrize(
    ("old", "new", "thing"),
    [
        ("kind: Pod", "kind: Deployment", "kind"),
        ("apiVersion: v1", "apiVersion: v2", "apiVersion"),
        ("name: train\n", "name: 7\n", "metadata.name"),
        ("command: [python", "command: [7", "command"),
        ('command: [python, "$(SCRIPT)"]', "tty: true", "command"),
        ("value: train.py", "valueFrom: {secretKeyRef: {name: a, key: b}}", "env SCRIPT"),
        ("flexai.io/cores: 30", "flexai.io/cores: 300", "flexai.io/cores"),
        ("flexai.io/cores: 30", "flexai.io/cores: .nan", "flexai.io/cores"),
        ("flexai.io/xpu: 2", "flexai.io/xpu: true", "flexai.io/xpu"),
        ("flexai.io/memory: 16Gi", "nvidia.com/gpu: 1", "resources"),
        ("flexai.io/memory: 16Gi, ", "", "flexai.io/memory"),
        ("{flexai.io/xpu: 2, flexai.io/cores: 30, flexai.io/memory: 16Gi, cpu: 500m, memory: 4Gi}", "{}", "limits"),
        ("best-effort", "fastest", "tenant_class"),
        ("2h", "soon", "time-limit"),
        ('"60%"', '"10%"', "limit_milli"),
        ("  containers:\n", "  containers:\n  - {name: sidecar}\n", "containers"),
        ("labels: {flexai.io/queue: lab}", "labels: {flexai.io/queue: [a]}", "flexai.io/queue"),
        ("metadata:", "<<: {a: b}\nmetadata:", "manifest"),
    ],
)
def test_what_would_be_another_job_is_refused_with_its_place(old, new, thing):
    assert old in POD
    with pytest.raises(BadInput) as error:
        decode_manifest(POD.replace(old, new), HERE)
    assert thing in error.value.thing
    assert error.value.remedy


def test_bombs_are_refused_before_they_grow():
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
    )
    for text in (
        laughs,
        "a: &a [*a]",
        "[" * 1000,
        "- " * 1000 + "x",
        "x" * (2 << 20),
        "a: !!python/object/apply:os.system [id]",
        "a: 2020-01-01",
        "\x00",
        "? {a: b}\n: c",
        "",
        "null",
        "--- \n...\n---\n[]",
    ):
        with pytest.raises(BadInput):
            decode_manifest(text, HERE)


ROLES = """apiVersion: scheduling.run.ai/v2alpha2
kind: PodGroup
metadata: {name: train}
spec:
  queue: big
  topologyConstraint: {topology: room, requiredTopologyLevel: row}
  subGroups:
    - {name: leader, minMember: 1}
    - name: worker
      minMember: 2
      topologyConstraint: {requiredTopologyLevel: rack}
"""


def role_pod(name, subgroup, cores, command="run"):
    return f"""---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations: {{pod-group-name: train}}
  labels: {{kai.scheduler/subgroup-name: {subgroup}}}
spec:
  containers:
    - name: main
      command: [{command}]
      resources: {{limits: {{flexai.io/xpu: 1, flexai.io/cores: {cores}, flexai.io/memory: 8Gi}}, requests: {{cpu: 2}}}}
"""


def test_a_pod_group_with_subgroups_is_a_job_of_roles():
    pods = [role_pod("l", "leader", 10, "lead"), *(role_pod(f"w{n}", "worker", 50, "work") for n in range(3))]
    manifest = decode_manifest(ROLES + "".join(pods), HERE)
    (job,) = manifest.submissions
    leader, worker = job.roles
    assert (job.name, job.queue, job.n_members, job.min_member, job.required_level) == ("train", "big", 4, 3, "row")
    assert (leader.role.name, leader.role.n_members, leader.command) == ("leader", 1, ("lead",))
    assert leader.role.request.compute_milli == 100
    assert (worker.role.n_members, worker.role.min_member, worker.role.required_level) == (3, 2, "rack")
    assert (worker.command, worker.role.request.compute_milli, worker.role.cpu_milli) == (("work",), 500, 2000)
    assert any("topology: not used" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("minMember: 2", "minMember: 4"), "is more than its 3 members: it would never start"),
        (("name: worker", "name: leader"), "is there twice"),
        (("minMember: 1}", "minMember: 1, parent: worker}"), "makes a subgroup of a subgroup"),
        (("subgroup-name: leader", "subgroup-name: boss"), "is none of its subgroups"),
        (("queue: big", "minMember: 5"), "is not the sum over its subgroups, 3"),
        (("subgroup-name: leader", "subgroup-name: worker"), "subgroup leader.*has no members"),
        (("cores: 10", "cores: 10, flexai.io/color: 1"), None),
    ],
)
def test_what_is_wrong_with_subgroups_is_told(change, problem):
    pods = [role_pod("l", "leader", 10), *(role_pod(f"w{n}", "worker", 50) for n in range(3))]
    text = (ROLES + "".join(pods)).replace(*change)
    if problem is None:
        assert any("flexai.io/color" in note for note in decode_manifest(text, HERE).notes)
        return
    with pytest.raises(BadInput, match=problem):
        decode_manifest(text, HERE)


WORKERS = """
---
apiVersion: batch/v1
kind: Job
metadata: {name: work, annotations: {flexai.io/pod-group: train, flexai.io/subgroup: worker}}
spec:
  completions: 6
  parallelism: 4
  template: {spec: {containers: [{name: c, command: [work], resources: {limits: {
    flexai.io/xpu: 1, flexai.io/cores: 50, flexai.io/memory: 8Gi}}}]}}
"""


def test_parallelism_is_how_many_members_of_a_role_run_at_once():
    (job,) = decode_manifest(ROLES + role_pod("l", "leader", 10) + WORKERS, HERE).submissions
    assert [(each.role.n_members, each.role.most_at_once) for each in job.roles] == [(1, 0), (6, 4)]
    assert decode_submission(encode_submission(job)) == job
    two = WORKERS + WORKERS.replace("name: work", "name: more").replace("parallelism: 4", "parallelism: 1")
    (job,) = decode_manifest(ROLES + role_pod("l", "leader", 10) + two, HERE).submissions
    assert (job.roles[1].role.n_members, job.roles[1].role.most_at_once) == (12, 5)


def test_a_subgroup_may_come_in_whole_subgroups_of_its_own_kind():
    size = "flexai.io/subgroup: worker, flexai.io/subgroup-size: '2', flexai.io/subgroup-level: rack"
    text = ROLES + role_pod("l", "leader", 10) + WORKERS.replace("flexai.io/subgroup: worker", size)
    worker = decode_manifest(text, HERE).submissions[0].roles[1].role
    assert (worker.n_members, worker.min_member, worker.subgroup_size, worker.subgroup_level) == (6, 2, 2, "rack")
    with pytest.raises(BadInput, match=r"parallelism.*no whole number of subgroups of 2"):
        decode_manifest(text.replace("parallelism: 4", "parallelism: 3"), HERE)


def test_fewer_at_once_than_must_start_together_are_refused():
    text = ROLES + role_pod("l", "leader", 10) + WORKERS.replace("parallelism: 4", "parallelism: 1")
    with pytest.raises(BadInput, match=r"parallelism.*is below its minMember 2"):
        decode_manifest(text, HERE)


NO_CARD = ("flexai.io/xpu: 1, flexai.io/cores: 10, flexai.io/memory: 8Gi", "cpu: 4")


@pytest.mark.parametrize("limits", ["memory: 2Gi", "flexai.io/xpu: 0, memory: 2Gi"])
def test_a_subgroup_whose_pods_ask_for_no_card_holds_cpus_and_memory_only(limits):
    pods = [role_pod("l", "leader", 10).replace(NO_CARD[0], limits), role_pod("w", "worker", 50)]
    (job,) = decode_manifest((ROLES + "".join(pods)).replace("minMember: 2", "minMember: 1"), HERE).submissions
    leader, worker = (each.role for each in job.roles)
    assert (leader.request.n_devices, leader.cpu_milli, leader.ram_bytes) == (0, 2000, 2 << 30)
    assert job.request == worker.request, "what the job asks for is what those with cards ask for"
    assert decode_submission(encode_submission(job)) == job


def test_whoever_has_no_card_has_a_neighbour_in_its_group_that_does():
    alone = POD.replace("flexai.io/xpu: 2, flexai.io/cores: 30, flexai.io/memory: 16Gi, ", "")
    bare = role_pod("l", "leader", 10).replace(NO_CARD[0], NO_CARD[1])
    group = "kind: PodGroup\napiVersion: flexai.io/v1alpha1\nmetadata: {name: train}\n"
    alike = bare.replace("labels: {kai.scheduler/subgroup-name: leader}", "")
    worker = role_pod("w", "worker", 10).replace(*NO_CARD)
    roles = (ROLES + bare + worker).replace("minMember: 2", "minMember: 1")
    for text in (alone, group + alike, roles):
        with pytest.raises(BadInput, match="asks for no card"):
            decode_manifest(text, HERE)


def test_a_pod_of_a_subgroup_without_a_group_is_refused():
    with pytest.raises(BadInput, match="is the subgroup of no PodGroup"):
        decode_manifest(POD.replace("acme.io/x: y", "flexai.io/subgroup: leader"), HERE)

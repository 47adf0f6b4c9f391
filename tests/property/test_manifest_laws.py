"""Whatever the text, a manifest is read or refused with a reason; never anything else."""

import contextlib

import yaml
from hypothesis import given
from hypothesis import strategies as st

from flexai.wire.errors import BadInput
from flexai.wire.manifest import decode_manifest

HERE = {"cwd": "/", "env": {}}
WORDS = st.sampled_from([
    "apiVersion", "kind", "metadata", "spec", "name", "containers", "command", "args", "env", "resources", "limits",
    "requests", "flexai.io/xpu", "flexai.io/cores", "flexai.io/memory", "nvidia.com/gpu", "annotations", "labels",
    "flexai.io/queue", "flexai.io/pod-group", "template", "completions", "parallelism", "v1", "batch/v1", "Pod", "Job",
    "Queue", "PodGroup", "List", "items", "flexai.io/v1", "minMember", "quotaCards", "users", "value", "valueFrom",
])  # fmt: skip
SCALARS = WORDS | st.text(max_size=8) | st.integers() | st.floats() | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=25
)


@st.composite
def nearly_pods(draw):
    """A right pod with something else put somewhere."""
    pod = {
        "apiVersion": "v1",
        "kind": draw(st.sampled_from(["Pod", "Job", "Queue", "PodGroup"])),
        "metadata": {"name": "a", "annotations": {}},
        "spec": {
            "containers": [
                {"command": ["x"], "env": [{"name": "A", "value": "b"}],
                 "resources": {"limits": {"flexai.io/xpu": 1, "flexai.io/cores": 50, "flexai.io/memory": "1Gi"}}}
            ]
        },
    }  # fmt: skip
    if pod["kind"] == "Job":
        pod |= {"apiVersion": "batch/v1", "spec": {"template": {"spec": pod["spec"]}}}
    elif pod["kind"] != "Pod":
        pod |= {"apiVersion": "flexai.io/v1", "spec": {}}
    at = pod
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = draw(st.sampled_from(list(keys))) if keys else None
        if key is None or not isinstance(at[key], dict | list) or draw(st.booleans()):
            break
        at = at[key]
    if isinstance(at, dict):
        at[draw(WORDS) if key is None or draw(st.booleans()) else key] = draw(VALUES)
    elif key is not None:
        at[key] = draw(VALUES)
    return pod


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(BadInput):
        decode_manifest(text, HERE)


@given(VALUES | nearly_pods())
def test_any_document_is_read_or_refused(document):
    with contextlib.suppress(BadInput):
        decode_manifest(yaml.safe_dump(document, allow_unicode=True), HERE)

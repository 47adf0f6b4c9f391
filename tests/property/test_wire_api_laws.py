"""Laws of the pool API's decoders and of the event log's codec."""

import json
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from flexai.model import SliceRequest, TenantClass
from flexai.scheduling.events import Event
from flexai.wire import api
from flexai.wire.errors import BadInput
from flexai.wire.store import decode_event, encode_event

word = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
name = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?", fullmatch=True)


@st.composite
def submissions(draw):
    compute = draw(st.integers(1, 1000))
    request = SliceRequest(
        compute_milli=compute,
        limit_milli=draw(st.integers(compute, 1000)),
        memory_bytes=draw(st.integers(0 if compute == 1000 else 1, 2**40)),
        tenant_class=draw(st.sampled_from(TenantClass)),
        n_devices=draw(st.integers(1, 8)),
        models=tuple(draw(st.lists(st.just("NVIDIA H200"), max_size=2))),
    )
    n_members = draw(st.integers(1, 4))
    return api.Submission(
        command=tuple(draw(st.lists(word, min_size=1, max_size=4))),
        cwd="/tmp",
        request=request,
        env=draw(st.dictionaries(name, word, max_size=3)),
        queue=draw(name),
        n_members=n_members,
        min_member=draw(st.integers(1, n_members)),
        priority=draw(st.integers(-5, 5)),
        after=tuple(draw(st.lists(st.from_regex(r"[1-9][0-9]{0,4}(_[0-9]{1,3})?", fullmatch=True), unique=True))),
        array=tuple(draw(st.lists(st.integers(0, 50), unique=True).map(sorted))),
        held=draw(st.booleans()),
    )


@given(submissions())
def test_a_submission_survives_the_wire(submission):
    body = json.dumps(api.encode_submission(submission)).encode()
    assert api.decode_submission(api.decode_json(body)) == submission


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
good = {"command": ["true"], "cwd": "/", "compute_milli": 300, "memory_bytes": 1 << 30}


@given(st.sampled_from(sorted(api.encode_submission(api.decode_submission(good)))), json_values)
def test_any_value_in_any_field_is_accepted_or_named_in_a_bad_input(field, value):
    try:
        api.decode_submission(good | {field: value})
    except BadInput as error:
        assert error.thing
        assert error.remedy


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_bad_input(body):
    try:
        assert isinstance(api.decode_json(body), dict)
    except BadInput as error:
        assert error.thing == "request body"


@settings(max_examples=25)
@given(st.sampled_from(get_args(Event)).flatmap(st.from_type))
def test_every_event_survives_the_log(event):
    kind, text = encode_event(event)
    assert decode_event(kind, text) == event


@given(st.sampled_from([kind.__name__ for kind in get_args(Event)]), json_values)
def test_a_damaged_row_of_the_log_is_a_bad_input(kind, value):
    try:
        decode_event(kind, json.dumps(value))
    except BadInput as error:
        assert kind in error.thing
    else:
        assert "at_ms" in value


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=30, unique=True))
def test_an_array_written_as_numbers_reads_back(numbers):
    assert api.parse_array(",".join(map(str, numbers))) == tuple(sorted(numbers))

"""The answers of the pool as its client reads them: whole, in chunks, cut off anywhere, or nonsense."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.adapters.pool_client.http1 import Answer, BrokenAnswer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def answer(data: bytes) -> Answer:
    return Answer(io.BufferedReader(io.BytesIO(data)))


def chunked(parts: list[bytes]) -> bytes:
    body = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts if part)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\ntrailer: x\r\n\r\n"


def sized(parts: list[bytes]) -> bytes:
    body = b"".join(parts)
    return HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def until_closed(parts: list[bytes]) -> bytes:
    return HEAD + b"\r\n" + b"".join(parts)


@given(parts=st.lists(st.binary(max_size=50)), form=st.sampled_from([chunked, sized, until_closed]))
def test_a_body_comes_whole_however_it_is_sent(parts, form):
    assert answer(form(parts)).read() == b"".join(parts)


@given(parts=st.lists(st.binary(max_size=20)), form=st.sampled_from([chunked, sized, until_closed]))
def test_its_lines_are_the_lines_of_the_body(parts, form):
    stream, lines = answer(form(parts)), []
    while line := stream.readline():
        lines.append(line)
    assert lines == io.BytesIO(b"".join(parts)).readlines()


@given(parts=st.lists(st.binary(min_size=1, max_size=20), min_size=1), data=st.data())
def test_an_answer_that_is_cut_off_is_never_taken_for_a_whole_one(parts, data):
    for form in (chunked, sized):
        whole = form(parts)
        at = data.draw(st.integers(0, len(whole) - 1))
        with pytest.raises(BrokenAnswer):
            answer(whole[:at]).read()


@given(st.binary(max_size=300))
def test_nonsense_is_refused_and_nothing_else_happens(data):
    for head in (b"", HEAD + b"transfer-encoding: chunked\r\n\r\n"):
        with contextlib.suppress(BrokenAnswer):
            answer(head + data).read()

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.wire.errors import BadInput
from flexai.wire.quantity import format_share, format_size, parse_duration_ms, parse_share, parse_size


@given(st.integers(1, 1000))
def test_a_share_survives_being_written_and_read(milli):
    assert parse_share(format_share(milli)) == milli


@pytest.mark.parametrize("text", ["0", "0%", "101%", "1.5", "-3%", "thirty", "", "30 %%", "0.05%", "nan", "1e3"])
def test_a_wrong_share_is_refused_with_the_remedy(text):
    with pytest.raises(BadInput) as caught:
        parse_share(text)
    assert caught.value.remedy
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("text", "size"), [("16Gi", 16 * 2**30), ("500M", 500_000_000), ("1.5Ki", 1536), ("7", 7)])
def test_sizes_are_read_like_kubernetes_quantities(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["0", "0Gi", "16GG", "", "-1", "9999999Ti"])
def test_a_wrong_size_is_refused(text):
    with pytest.raises(BadInput):
        parse_size(text)


@given(st.text(max_size=20))
def test_no_text_crashes_a_parser(text):
    for parse in (parse_share, parse_size, parse_duration_ms):
        try:
            assert parse(text) > 0
        except BadInput as error:
            assert error.thing


@pytest.mark.parametrize(("text", "ms"), [("90s", 90_000), ("2h30m", 9_000_000), ("1d", 86_400_000), ("5ms", 5)])
def test_durations_are_read(text, ms):
    assert parse_duration_ms(text) == ms


def test_sizes_are_written_for_people():
    assert format_size(16 * 2**30) == "16 GiB"
    assert format_size(1536) == "1.5 KiB"

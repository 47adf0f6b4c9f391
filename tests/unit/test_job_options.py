"""What `run` and `submit` refuse by themselves: the thing as it was typed, the value, and what to do."""

import pytest

from flexai.adapters.settings import load_settings
from flexai.adapters.settings.load import OVER_CAP
from flexai.apps.cli.job_options import CLASSES, job_body, parse_words
from flexai.model import OVER_CAP as MODEL_OVER_CAP
from flexai.model import TenantClass
from flexai.wire.errors import BadInput


def test_the_words_offered_are_those_of_the_model():
    assert set(CLASSES) == set(TenantClass)
    assert OVER_CAP == MODEL_OVER_CAP


@pytest.mark.parametrize(
    ("words", "thing", "value"),
    [
        ("--share 150% -m 1Gi", "--share", "150%"),
        ("--share 0 -m 1Gi", "--share", "0"),
        ("--share 30% -m lots", "memory", "lots"),
        ("--share 30% -m 1Gi --limit 20%", "--limit", "20%"),
        ("--share 30% -m 1Gi --class fast", "--class", "fast"),
        ("--share 30% -m 1Gi --devices none", "--devices", "none"),
        ("--share 30% -m 1Gi --cpus 0", "--cpus", "0"),
        ("--share 30% -m 1Gi --time 5", "--time", "5"),
        ("--share 30%", "--memory", "30%"),
        ("--share 30% -m 1Gi --nonsense", "--nonsense", "--nonsense"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_a_remedy(words, thing, value, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    def read_them() -> None:
        given, command = parse_words("run", [*words.split(), "--", "true"])
        job_body("run", given, command, load_settings({}))

    with pytest.raises(BadInput) as caught:
        read_them()
    assert thing in caught.value.thing
    assert value in str(caught.value)
    assert caught.value.remedy

"""Settings come from one place, and what is wrong is named."""

from pathlib import Path

import pytest

from flexai.adapters.settings import SETTINGS, load_settings
from flexai.wire.errors import BadInput

REFERENCE = Path(__file__).parents[2] / "docs/reference/settings.md"


def load(tmp_path, content="", environment=None, **flags):
    file = tmp_path / "config.toml"
    file.write_text(content)
    return load_settings(flags, {"HOME": str(tmp_path), **(environment or {})}, (file,))


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path):
    content, environment = "queue = 'from-file'", {"FLEXAI_QUEUE": "from-environment"}
    assert load(tmp_path).queue == "default"
    assert load(tmp_path, content).queue == "from-file"
    assert load(tmp_path, content, environment).queue == "from-environment"
    assert load(tmp_path, content, environment, queue="from-flag").queue == "from-flag"
    assert load(tmp_path, content, environment, queue=None).queue == "from-environment"


def test_a_later_file_wins(tmp_path):
    system, own = tmp_path / "system.toml", tmp_path / "own.toml"
    system.write_text("queue = 'a'\nshare = '50%'")
    own.write_text("queue = 'b'")
    settings = load_settings({}, {"HOME": str(tmp_path)}, (system, own, tmp_path / "missing.toml"))
    assert (settings.queue, settings.share) == ("b", "50%")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("quueue = 'x'", ["config.toml", "quueue", "Known settings"]),
        ("ready_timeout_s = 'soon'", ["config.toml", "ready_timeout_s", "soon"]),
        ("run_dir = 'relative'", ["run_dir", "relative", "absolute"]),
        ("color = true", ["color", "True"]),
        ("= 1", ["config.toml", "TOML"]),
        ("color = 'pink'", ["color", "pink", "auto"]),
        ("share = '300%'", ["config.toml: share", "300%", "0.1% to 100%"]),
    ],
)
def test_a_wrong_file_names_file_key_value_and_remedy(tmp_path, content, names):
    with pytest.raises(BadInput) as caught:
        load(tmp_path, content)
    for name in names:
        assert name in str(caught.value)
    assert caught.value.remedy


def test_a_wrong_variable_is_named(tmp_path):
    with pytest.raises(BadInput, match="FLEXAI_READY_TIMEOUT_S"):
        load(tmp_path, environment={"FLEXAI_READY_TIMEOUT_S": "0"})


def test_folders_of_a_user_follow_the_xdg_rules(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    plain = load(tmp_path)
    assert plain.state_dir == tmp_path / ".local/state/flexai"
    assert plain.run_dir == plain.state_dir / "run"
    told = load(tmp_path, environment={"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"})
    assert (told.state_dir, told.run_dir) == (Path("/s/flexai"), Path("/r/flexai"))


def test_every_setting_is_in_the_reference_with_its_variable():
    text = REFERENCE.read_text()
    for setting in SETTINGS:
        assert f"`{setting.key}`" in text
        assert f"`{setting.variable}`" in text
        assert setting.default in text
        assert setting.meaning in text

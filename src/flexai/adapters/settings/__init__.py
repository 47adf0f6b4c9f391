"""Settings, read in one place: flag over environment over file over default.

Everything a person can set lives here as one typed record; nobody else reads ``FLEXAI_*`` or a configuration file.
Every command pays for this import, so it uses the standard library only and parses TOML only when a file exists.
"""

from flexai.adapters.settings.load import SETTINGS, Setting, Settings, config_files, load_settings

__all__ = ["SETTINGS", "Setting", "Settings", "config_files", "load_settings"]

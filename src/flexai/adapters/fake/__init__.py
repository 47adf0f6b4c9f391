"""Cards that exist in this process only, for tests of whatever needs a device backend and no device."""

from flexai.adapters.fake.backend import FakeBackend

__all__ = ["FakeBackend"]

"""For all tests: the examples of a law have no deadline each.

How long one takes is the machine's affair, which others may use too; what must be fast has a benchmark, and every test
has its own timeout.
"""

from hypothesis import settings

settings.register_profile("flexai", deadline=None)
settings.load_profile("flexai")

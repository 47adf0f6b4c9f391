"""`flexai bench`: one frame for every benchmark, and the benchmarks.

A benchmark measures and reports; it never asserts. Each folder or module registers cases with goals.
"""

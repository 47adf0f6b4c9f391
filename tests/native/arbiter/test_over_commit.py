"""Requests that come to more than the card: everybody has so much less, in proportion, and latency tenants too."""

import pytest

FLOODS = "flood:0:1000:2 put:0:800:1000:1 flood:1:1000:2 put:1:500:1000:1"
STEPS = "step:0:1000:50 put:0:800:1000:1 step:1:1000:50 put:1:500:1000:1 flood:2:1000:2 put:2:300:1000:1"
LATENCY = "latency:0:4000:5000 put:0:600:1000:0 flood:1:1000:2 put:1:500:1000:1 flood:2:1000:2 put:2:500:1000:1"
RUN = "run:3000 mark run:10000 report"


@pytest.mark.parametrize(
    ("backend", "steps", "requests"),
    [
        ("hwslice", FLOODS, (800, 500)), ("lease", FLOODS, (800, 500)), ("hwslice", STEPS, (800, 500, 300)),
        ("hwslice", LATENCY, (600, 500, 500)),
    ],
)  # fmt: skip
def test_shares_are_scaled_in_proportion(play, backend, steps, requests):
    figures = play(backend, steps, RUN)
    for i, request in enumerate(requests):
        assert abs(100 * figures.held(i) / figures.sum - 100 * request / sum(requests)) <= 0.7
    assert figures.sum > 98.5


def test_a_limit_holds_as_ever(play):
    figures = play("hwslice", "flood:0:1000:2 put:0:900:900:1 flood:1:1000:2 put:1:300:300:1", RUN)
    assert abs(figures.held(0) - 75) <= 0.6
    assert abs(figures.held(1) - 25) <= 0.6


@pytest.mark.parametrize("backend", ["hwslice", "lease"])
def test_a_latency_tenant_that_never_rests_goes_first_for_its_request_only(play, backend):
    figures = play(backend, "flood:0:1000:2 put:0:500:1000:0 flood:1:1000:2 put:1:500:1000:1", RUN)
    assert abs(figures.held(1) - 50) <= 1

"""What slices used of a card, out of counters that say who held it."""

from flexai.apps.agent.figures import Figures
from flexai.ports import DeviceUsage, TenantUsage, Usage

MS = 1_000_000


def figures(*readings):
    """Readings 200 ms apart; each is a table of tenant to ms held since the last one."""
    out, held = Figures(), {}
    for number, table in enumerate(readings):
        for tenant, ms in table.items():
            held[tenant] = held.get(tenant, 0) + ms * MS
        rows = tuple(TenantUsage(name, "card", ns, 0, 0, 0, 0, 0, 0, 0, 0) for name, ns in held.items())
        out.take(Usage(number * 200 * MS, 1, 0, (), rows))
    return out


def test_a_lone_tenant_that_holds_its_card_idly_used_only_what_the_card_worked():
    alone = figures({"a": 0}, {"a": 200}, {"a": 200})
    assert alone.used_milli("card", 100) == {("a", "card"): 100}


def test_tenants_that_took_turns_used_what_they_held():
    shared = figures({"a": 0, "b": 0}, {"a": 60, "b": 140}, {"a": 60, "b": 140})
    assert shared.used_milli("card", 1000) == {("a", "card"): 300, ("b", "card"): 700}


def test_a_driver_that_does_not_say_how_busy_the_card_is_changes_nothing():
    assert figures({"a": 0}, {"a": 100}).used_milli("card", -1) == {("a", "card"): 500}


def test_of_a_tenant_seen_once_nothing_is_said():
    assert figures({"a": 50}).used_milli("card", 1000) == {}


def test_what_was_held_is_divided_by_the_time_that_it_is_told_of_not_by_when_it_was_read():
    """Half of a card, published 0 to 90 ms after the log was read up to which it is told."""
    out = Figures()
    for number, late_ms in enumerate((0, 90, 40, 0, 70, 90)):
        known_ms = 10_000 + number * 200 - late_ms
        row = TenantUsage("a", "card", known_ms // 2 * MS, 0, 0, 0, 0, 0, 0, 0, 0)
        card = DeviceUsage("card", "hwslice", "log", 0, 0, 0, 0, "", known_ns=known_ms * MS)
        published_ns = (10_000 + number * 200) * MS
        out.take(Usage(published_ns, 1, published_ns, (card,), (row,)))
        assert out.rates(("a", "card")).got_milli_1s in {0, 500}
    assert out.rates(("a", "card")).got_milli_1s == 500


def test_of_a_card_whose_log_was_not_read_for_long_nothing_went_on_meanwhile():
    out = Figures()
    for at_ms, known_ms, held_ms in ((0, 1, 0), (5_000, 1, 0), (5_200, 5_200, 100)):
        row = TenantUsage("a", "card", held_ms * MS, 0, 0, 0, 0, 0, 0, 0, 0)
        card = DeviceUsage("card", "hwslice", "log", 0, 0, 0, 0, "", known_ns=known_ms * MS)
        out.take(Usage((10_000 + at_ms) * MS, 1, at_ms * MS, (card,), (row,)))
    assert out.rates(("a", "card")).got_milli_1s == 250

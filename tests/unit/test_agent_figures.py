"""What slices used of a card, out of counters that say who held it."""

from flexai.apps.agent.figures import Figures
from flexai.ports import TenantUsage, Usage

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

"""The audit of device memory, look by look: who is over, by which path, and who cannot be blamed."""

from hypothesis import given
from hypothesis import strategies as st

from flexai.apps.agent.memory_look import LOOKS, Cap, Holding, Leak, MemoryLook

GIB = 1 << 30
CARD = "GPU-0"


def look(audit, in_use, holdings, caps):
    """Those told of, when the same is seen for as long as it takes."""
    said = []
    for _ in range(2 * LOOKS):
        said += audit.look({CARD: in_use}, holdings, caps)[1]
    return said


def settled(in_use=GIB // 2):
    """An audit that knows what the driver itself takes."""
    audit = MemoryLook()
    assert look(audit, in_use, [], [Cap("other", CARD, 0, 0)]) == []
    return audit


def held(tenant, used_bytes, has_shim=True, pid=1):
    return Holding(CARD, pid, tenant, used_bytes, has_shim)


def test_a_process_without_the_shim_is_named_and_only_once_it_stays():
    audit = settled()
    args = (
        {CARD: GIB // 2 + 3 * GIB},
        [held("a", 1 * GIB, pid=7), held("a", 2 * GIB, False, 9)],
        [Cap("a", CARD, GIB, GIB)],
    )
    told = [audit.look(*args)[1] for _ in range(LOOKS + 2)]
    assert [len(one) for one in told] == [0] * (LOOKS - 1) + [1, 0, 0]
    over = told[LOOKS - 1][0]
    assert (over.used_bytes, over.leaks, over.pids) == (3 * GIB, ((Leak.NO_SHIM, 2 * GIB),), (9, 7))


def test_who_comes_back_under_its_cap_is_told_of_again_the_next_time():
    audit, caps = settled(), [Cap("a", CARD, GIB, 0)]
    assert len(look(audit, 3 * GIB, [held("a", 2 * GIB)], caps)) == 1
    assert look(audit, GIB, [], caps) == []
    assert len(look(audit, 3 * GIB, [held("a", 2 * GIB)], caps)) == 1


def test_more_than_was_charged_is_a_path_that_the_shim_does_not_see():
    (over,) = look(settled(), 2 * GIB + GIB // 2, [held("a", 2 * GIB)], [Cap("a", CARD, GIB, GIB // 4)])
    assert over.leaks == ((Leak.UNCHARGED, 2 * GIB - GIB // 4),)


def test_a_cap_that_was_lowered_is_no_leak():
    (over,) = look(settled(), 2 * GIB + GIB // 2, [held("a", 2 * GIB)], [Cap("a", CARD, GIB, 2 * GIB)])
    assert over.leaks == ((Leak.CAP_LOWERED, GIB),)


def test_bytes_that_belong_to_no_process_are_laid_at_the_only_door():
    (over,) = look(settled(), GIB // 2 + 5 * GIB, [held("a", GIB)], [Cap("a", CARD, GIB, GIB)])
    assert (over.used_bytes, over.leaks) == (5 * GIB, ((Leak.MANAGED_OR_HOST, 4 * GIB),))


def test_of_two_tenants_the_one_without_a_shim_is_suspected():
    audit, caps = settled(), [Cap("a", CARD, GIB, GIB), Cap("b", CARD, GIB, 0)]
    holdings = [held("a", GIB), held("b", GIB // 4, False, 2)]
    (over,) = look(audit, GIB // 2 + 4 * GIB, holdings, caps)
    assert (over.tenant, over.leaks[0][0]) == ("b", Leak.MANAGED_OR_HOST)


def test_nobody_is_blamed_where_two_may_have_done_it():
    for holdings, outside in (
        ([held("a", GIB), held("b", GIB, pid=2)], False),
        ([held("a", GIB), held("", GIB, pid=2)], True),
    ):
        audit = settled()
        caps = [Cap("a", CARD, GIB, GIB), Cap("b", CARD, GIB, GIB if not outside else 0)]
        assert look(audit, GIB // 2 + 5 * GIB, holdings, caps) == []
        assert (audit.adrift[CARD].n_bytes, audit.adrift[CARD].outside) == (3 * GIB, outside)
        assert "a" in audit.adrift[CARD].suspects


def test_managed_memory_that_is_charged_is_expected_and_no_leak():
    audit = settled()
    assert look(audit, GIB // 2 + 3 * GIB, [held("a", GIB)], [Cap("a", CARD, 3 * GIB, 3 * GIB)]) == []
    assert audit.adrift == {}


def test_a_look_between_an_end_and_its_memory_changes_nothing():
    audit, caps = settled(), [Cap("a", CARD, GIB, GIB)]
    for in_use in (GIB // 2 + GIB, GIB // 2, GIB // 2 + GIB, GIB // 2 + 9 * GIB, GIB // 2 + GIB):
        assert audit.look({CARD: in_use}, [held("a", GIB)], caps) == ([], [])
    assert look(audit, GIB // 2 + GIB, [held("a", GIB)], caps) == []


def test_without_the_drivers_word_on_a_process_nothing_is_said_of_the_rest():
    audit = settled()
    assert look(audit, 9 * GIB, [held("a", -1)], [Cap("a", CARD, GIB, 0)]) == []


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.integers(0, 4 * GIB), st.booleans()), max_size=6), st.data()
)
def test_who_holds_no_more_than_its_cap_is_never_accused(rows, data):
    """Whatever the others do: with the card's rest standing still, used <= cap is never over."""
    audit = settled()
    holdings = [held(tenant, used, shim, pid) for pid, (tenant, used, shim) in enumerate(rows, 1)]
    totals = {name: sum(h.used_bytes for h in holdings if h.tenant == name) for name in "ab"}
    charged = {name: data.draw(st.integers(0, totals[name])) for name in "ab"}
    caps = [Cap(name, CARD, max(1, totals[name]), charged[name]) for name in "ab"]
    assert look(audit, GIB // 2 + sum(h.used_bytes for h in holdings), holdings, caps) == []


def test_bytes_that_were_there_at_the_first_looks_are_seen_if_the_card_was_seen_empty_before():
    args = (GIB // 2 + 5 * GIB, [held("a", GIB)], [Cap("a", CARD, GIB, GIB)])
    seen, unseen = MemoryLook(), MemoryLook()
    seen.stands({CARD: GIB // 2}, [])
    unseen.stands({CARD: GIB // 2 + 4 * GIB}, [CARD])  # somebody has it: that tells nothing of the driver's own part
    (over,) = look(seen, *args)
    assert over.leaks == ((Leak.MANAGED_OR_HOST, 4 * GIB),)
    assert look(unseen, *args) == []

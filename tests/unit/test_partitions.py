"""Hardware partitions: cards that are cut by profiles, places and all."""

import itertools

import pytest

from flexai.model import Device, Job, Node, Queue, SliceRequest, partition_profile
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import GrantsFound, JobResizeAsked, JobSubmitted, MemberFinished, NodePut, QueuePut

GIB = 2**30
H200 = "NVIDIA H200"
MIG = ("1g.18gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb")


ONE_QUEUE = (Queue("a"),)


def pool(n_cards=1, model=H200, memory=141 * GIB, names=MIG, queues=ONE_QUEUE):
    scheduler = Scheduler(SchedulerSettings(), check=True)
    for queue in queues:
        scheduler.step(QueuePut(0, queue))
    cards = tuple(
        Device(f"card{n}", model, "simulated", n, memory, partitions=names) for n in range(n_cards)
    )  # fmt: skip
    scheduler.step(NodePut(0, Node("n", cards, 64_000, 512 * GIB)))
    return scheduler


def submit(scheduler, seq, partition="", milli=1000, gib=0, queue="a"):
    request = SliceRequest(milli, 1000, gib * GIB, partition=partition)
    return scheduler.step(JobSubmitted(seq, Job(f"j{seq}", "ann", queue, request, seq=seq, submitted_at_ms=seq)))


def grants(commands):
    return [grant for each in commands if isinstance(each, Start) for grant in each.grants]


def test_a_card_is_cut_into_seven_and_the_eighth_waits_with_the_reason():
    scheduler = pool()
    got = [grant for seq in range(1, 9) for grant in grants(submit(scheduler, seq, "1g.18gb"))]
    assert sorted(grant.partition_start for grant in got) == list(range(7))
    assert {(grant.partition, grant.compute_milli, grant.memory_bytes) for grant in got} == {
        ("1g.18gb", 142, 18 * 10**9)
    }
    reason = scheduler.reason_for("j8")
    assert reason.code == "NotEnoughDevices"
    assert "room for one more partition 1g.18gb" in reason.message


def test_small_partitions_leave_room_for_large_ones():
    scheduler = pool()
    first = grants(submit(scheduler, 1, "1g.18gb"))
    assert first[0].partition_start in (4, 5, 6), "the place where 4g must begin stays free"
    assert grants(submit(scheduler, 2, "4g.71gb"))[0].partition_start == 0


def test_a_profile_begins_only_where_the_card_lets_it():
    scheduler = pool()
    assert [grants(submit(scheduler, seq, "3g.71gb"))[0].partition_start for seq in (1, 2)] == [4, 0]
    assert grants(submit(scheduler, 3, "1g.18gb")) == []


def test_a_card_that_is_shared_is_not_cut_and_one_that_is_cut_is_not_shared():
    scheduler = pool(2)
    (share,) = grants(submit(scheduler, 1, milli=100, gib=5))
    (cut,) = grants(submit(scheduler, 2, "1g.18gb"))
    assert share.device != cut.device
    assert grants(submit(scheduler, 3, milli=100, gib=5))[0].device == share.device
    assert grants(submit(scheduler, 4)) == [], "no whole card is left"
    assert grants(submit(scheduler, 5, "7g.141gb")) == []
    scheduler.step(MemberFinished(6, "j1", 0, 0))
    assert grants(scheduler.step(MemberFinished(7, "j3", 0, 0)))[0].device == share.device


def test_partitions_are_reclaimed():
    scheduler = pool(queues=(Queue("owner", quota_milli=1000), Queue("guest")))
    for seq in range(1, 8):
        submit(scheduler, seq, "1g.18gb", queue="guest")
    evicted = [each.job_id for each in submit(scheduler, 1000, "3g.71gb", queue="owner") if isinstance(each, Evict)]
    assert 3 <= len(evicted) <= 4
    began = [grant for name in evicted for grant in grants(scheduler.step(MemberFinished(1001, name, 0, 143)))]
    assert [grant.partition for grant in began] == ["3g.71gb"]


def test_a_partition_keeps_its_size():
    scheduler = pool()
    submit(scheduler, 1, "1g.18gb")
    assert scheduler.step(JobResizeAsked(2, "j1", 500, 500)) == []


def test_partitions_found_after_a_restart_keep_their_places():
    scheduler = pool()
    (grant,) = grants(submit(scheduler, 1, "3g.71gb"))
    again = Scheduler(SchedulerSettings(), check=True)
    again.step(QueuePut(0, Queue("a")))
    job = scheduler.state.jobs["j1"].job
    again.step(GrantsFound(1, job, (grant,)))
    again.step(NodePut(2, scheduler.state.books.nodes["n"]))
    assert (again.state.books.cut == scheduler.state.books.cut).all()
    assert grants(submit(again, 2, "4g.71gb"))[0].partition_start == 0


def test_a_profile_that_no_card_has_is_said_to_be_missing():
    scheduler = pool()
    submit(scheduler, 1, "vir04")
    assert scheduler.reason_for("j1").code == "NoSuchDevice"
    assert "cut into vir04" in scheduler.reason_for("j1").message


def test_a_vnpu_template_is_bounded_by_the_cores_of_the_card():
    scheduler = pool(model="Ascend 910B3", memory=64 * GIB, names=("vir05_1c_16g", "vir10_3c_32g"))
    got = [
        len(grants(submit(scheduler, seq, name))) for seq, name in enumerate(["vir10_3c_32g"] + ["vir05_1c_16g"] * 3, 1)
    ]
    assert got == [1, 1, 1, 0]


@pytest.mark.parametrize("cut", [0, 0b1, 0b1000000, 0b1111, 0b110000, 0b1010101])
@pytest.mark.parametrize("name", MIG)
def test_as_many_partitions_fit_as_the_best_choice_of_places_gives(name, cut):
    profile = partition_profile(H200, 141 * GIB, name)
    most = max(
        n
        for n in range(len(profile.starts) + 1)
        for some in itertools.combinations(profile.starts, n)
        if sum(profile.places(start) for start in some) & cut == 0
        and sum(profile.places(start) for start in some).bit_count() == n * profile.size
        and len({bit for start in some for bit in range(start, start + profile.size)}) == n * profile.size
    )
    assert profile.n_more(cut) == most


@pytest.mark.parametrize(
    ("model", "gib", "name", "size", "milli"),
    [
        ("NVIDIA A100-SXM4-40GB", 40, "1g.10gb", 2, 142), ("NVIDIA A100-SXM4-40GB", 40, "3g.20gb", 4, 428),
        ("NVIDIA H100 80GB HBM3", 80, "1g.20gb", 2, 142), ("NVIDIA A30", 24, "2g.12gb", 2, 500),
        ("Ascend 310P3", 24, "vir02", 1, 250), ("Ascend 910A", 32, "vir02", 1, 66),
    ],
)  # fmt: skip
def test_profiles_are_what_the_vendors_tables_say(model, gib, name, size, milli):
    profile = partition_profile(model, gib * GIB, name)
    assert (profile.size, profile.compute_milli) == (size, milli)
    assert partition_profile(model, gib * GIB, "5g.90gb") is None

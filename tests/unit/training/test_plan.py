"""Effective batches do not depend on processes, micro-batches or where a run starts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from acar.training.plan import BatchPlan

SIZES = [(96, 128), (96, 96), (128, 96)]
plans = st.builds(
    dict,
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=12),
    batch_clips=st.integers(1, 9),
    micro_batch_clips=st.integers(1, 5),
    seed=st.integers(0, 5),
)


@given(plans, st.integers(1, 4), st.integers(0, 6))
def test_processes_share_the_batch(values, world, iteration):
    alone = BatchPlan(**values)
    parts = [BatchPlan(**values, rank=r, world=world).micro_batches(iteration) for r in range(world)]
    slots = sorted((s for part in parts for group in part for s in group), key=lambda s: s.position)
    assert slots == alone.batch(iteration)


@given(plans, st.integers(0, 6))
def test_a_micro_batch_has_one_size_and_fits(values, iteration):
    plan = BatchPlan(**values)
    for group in plan.micro_batches(iteration):
        assert 1 <= len(group) <= values["micro_batch_clips"]
        assert len({values["sizes"][slot.item] for slot in group}) == 1


@given(plans)
@settings(max_examples=30)
def test_an_epoch_shows_every_key_frame_once(values):
    plan = BatchPlan(**values)
    count = len(values["sizes"])
    slots = [slot for k in range(3 * count) for slot in plan.batch(k)][: 2 * count]
    assert sorted(slot.item for slot in slots[:count]) == list(range(count))
    assert sorted(slot.item for slot in slots[count:]) == list(range(count))


@given(plans, st.integers(0, 5), st.integers(0, 5))
def test_a_stream_can_start_anywhere(values, first, length):
    whole = [plan_slots for plan_slots in BatchPlan(**values).stream(0, first + length)]
    head = [plan_slots for plan_slots in BatchPlan(**values).stream(0, first)]
    assert whole == head + list(BatchPlan(**values).stream(first, first + length))

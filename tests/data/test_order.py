"""The order of events is that of a stable sort by user and time."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.order import stable_order
from ensue.data.vocabulary import Vocabulary

EVENTS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([-(2**62), -1, 0, 1, 5, 2**62])), max_size=20)


@given(EVENTS, st.booleans())
def test_events_are_ordered_by_user_and_time_and_place(events, timed):
    if timed:
        events = sorted(events, key=lambda event: event[1])
    user_E = np.array([user for user, _ in events], dtype=np.int32)
    time_E = np.array([time for _, time in events], dtype=np.int64)
    places = range(len(events))
    assert stable_order(user_E, time_E).tolist() == sorted(places, key=lambda place: events[place])
    assert stable_order(user_E).tolist() == sorted(places, key=lambda place: events[place][0])


@pytest.mark.parametrize("ids", [[5, 7, 8], [-(2**63), 2**63 - 1], list(range(-3, 40)), [2**63 - 1], [-(2**63)]])
def test_integers_close_together_or_far_apart_have_the_same_numbers(ids):
    vocabulary = Vocabulary.from_ids(ids)
    asked = pl.Series([*ids, 6, -(2**63), 2**63 - 1, None], dtype=pl.Int64)
    asked = asked.sample(5_000, with_replacement=True, seed=1)
    expected = [0 if value is None or value not in ids else sorted(ids).index(value) + 1 for value in asked]
    assert vocabulary.encode(asked).tolist() == expected

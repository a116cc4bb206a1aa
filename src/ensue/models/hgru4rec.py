"""HGRU4Rec: a recurrent network over sessions above one over the events of a session (Quadrana et al., RecSys 2017).

Suffixes: `B` rows of a batch, `R` rows of a view, `P` events of all rows, `Q` asked events, `S` sessions of all rows in
the order of the rows, `M` earlier sessions of a row, `K` slots of a memory, `D` width, `L` layers; of the sessions with
one number in their rows: `G` all of them, `p` their events, `T` events of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout, make_layout
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.errors import DataError
from ensue.models.base import MODELS, CausalConfig, ModelEntry
from ensue.models.biased import BiasedEncoder, with_one
from ensue.models.catalogue import Catalogue
from ensue.nn.dropout import Dropout

INSTEAD = "or use gru4rec, which reads a history as one session"


class HGRU4RecConfig(CausalConfig):
    """Settings of HGRU4Rec; the values of `user_state` are the authors' HRNN Init and HRNN All."""

    name: Literal["hgru4rec"] = "hgru4rec"
    hidden_units: int = Field(100, ge=1, description="width of item vectors and states")
    num_layers: int = Field(1, ge=1, description="stacked GRU layers of a session")
    session_gap: int = Field(1800, ge=0, description="seconds without an event after which a new session begins")
    user_state: Literal["init", "all"] = Field(
        "init", description="the user's state begins each session (init), and is also an input of each event (all)"
    )
    session_attention: bool = Field(False, description="states attend to the last states of earlier sessions")
    memory_slots: int = Field(0, ge=0, description="vectors of a user's memory, written after each session; 0: none")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on the input vectors")
    hidden_dropout_rate: float = Field(0.0, ge=0, lt=1, description="dropout on the states of events")
    user_dropout_rate: float = Field(0.0, ge=0, lt=1, description="dropout on the states of users")
    query_time: bool = Field(False, description="a request after a pause is answered from the start of a new session")

    @property
    def reads_query_time(self) -> bool:
        """The value of `query_time`."""
        return self.query_time

    @property
    def reads_times(self) -> bool:
        """True: pauses between events separate sessions."""
        return True


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of all rows of a batch that have the same number in their row.

    Attributes:
        events_p: the events, session by session.
        layout: the rectangles of the sessions.
        kept_G: the place of each session's predecessor among the sessions with the number before.
        number_G: the number of each session among all sessions of the batch.
    """

    events_p: Tensor
    layout: Layout
    kept_G: Tensor
    number_G: Tensor


def begins_session(times_P: np.ndarray, lengths_B: np.ndarray, gap: int) -> np.ndarray:
    """Whether a session begins with an event: [P]. It is its row's first, or comes more than `gap` seconds later."""
    is_new_P = np.diff(times_P, prepend=times_P[:1]) > gap
    is_new_P[np.cumsum(lengths_B) - lengths_B] = True
    return is_new_P


def session_steps(is_new_P: np.ndarray, lengths_B: np.ndarray) -> Iterator[Sessions]:
    """The first sessions of all rows, the second sessions of the rows that have one, and so on."""
    start_S = np.flatnonzero(is_new_P)
    length_S = np.diff(start_S, append=len(is_new_P))
    first_B = np.searchsorted(start_S, np.cumsum(lengths_B) - lengths_B)
    count_B = np.diff(first_B, append=len(start_S))
    before = np.arange(len(lengths_B))
    for number in range(int(count_B.max())):
        rows = np.flatnonzero(count_B > number)
        sessions = first_B[rows] + number
        events_p = gather_events(start_S[sessions], start_S[sessions] + length_S[sessions])
        indices = events_p, np.searchsorted(before, rows), sessions
        events, kept, numbers = (torch.from_numpy(each.astype(np.int64)) for each in indices)
        yield Sessions(events, make_layout(length_S[sessions]), kept, numbers)
        before = rows


class SessionAttention(nn.Module):
    """h + softmax(h W_q . s W_k / sqrt(D)) s W_v over the last states s of earlier sessions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, h_GTD: Tensor, earlier_GMD: Tensor) -> Tensor:
        """States of events with what they read of earlier sessions, [G, T, D]."""
        read_GTD = F.scaled_dot_product_attention(self.query(h_GTD), self.key(earlier_GMD), self.value(earlier_GMD))
        return h_GTD + read_GTD


class SessionMemory(nn.Module):
    """Slots with learned keys; each session erases a part of those that are like it, and adds to them."""

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(slots, width))
        self.erase, self.add = nn.Linear(width, width), nn.Linear(width, width)

    def address(self, x_GD: Tensor) -> Tensor:
        """The share of each slot, [G, K]."""
        logits_GK: Tensor = x_GD @ self.keys.T / x_GD.shape[1] ** 0.5
        return logits_GK.softmax(-1)

    def write(self, slots_GKD: Tensor, last_GD: Tensor) -> Tensor:
        """The slots after a session with the last state `last_GD`."""
        share_GK1 = self.address(last_GD)[..., None]
        erased_GKD = share_GK1 * self.erase(last_GD).sigmoid()[:, None]
        added_GKD = share_GK1 * self.add(last_GD).tanh()[:, None]
        return torch.addcmul(added_GKD, slots_GKD, 1 - erased_GKD)

    def read(self, slots_GKD: Tensor, user_GD: Tensor) -> Tensor:
        """The mean of the slots, weighted by their likeness to a user's state: [G, D]."""
        return (self.address(user_GD)[:, None] @ slots_GKD)[:, 0]


class HGRU4Rec(BiasedEncoder):
    """After session m with the last state s_m: c_m = GRU_user(s_m, c_(m-1)); session m + 1 begins at tanh(W c_m + b).

    Within a session h_t = GRU(dropout(E[item])), or of [E[item]; c_m] for `user_state = "all"`; score = h_t . E[i] +
    b_i. The first session begins at zero. A memory adds what it reads for c_m to it. With `query_time` and a request
    after a pause, h is the state at which a new session begins.

    Differences from the authors' code: pauses separate sessions, not a column of session ids; whole histories are
    unrolled (theirs: one event a step, no gradient from one to the next), across sessions too; the first event of a
    session is a target; Adam instead of Adagrad. The attention and the memory are not theirs.
    """

    def __init__(self, config: HGRU4RecConfig, catalogue: Catalogue) -> None:
        width, layers = config.hidden_units, config.num_layers
        super().__init__(catalogue.num_items, config.maxlen, width)
        self.query_time, self.session_gap, self.feeds = (
            config.query_time,
            config.session_gap,
            config.user_state == "all",
        )
        self.dropout = Dropout(config.dropout_rate)
        self.hidden_dropout = Dropout(config.hidden_dropout_rate)
        self.user_dropout = Dropout(config.user_dropout_rate)
        self.session = nn.GRU(2 * width if self.feeds else width, width, layers, batch_first=True)
        self.user = nn.GRUCell(width, width)
        self.start = nn.Linear(width, layers * width)
        self.attention = SessionAttention(width) if config.session_attention else None
        self.memory = SessionMemory(config.memory_slots, width) if config.memory_slots else None

    def study(self, train: Sequences) -> None:
        """Check that the training part has sessions.

        Raises:
            DataError: it has no times, or no user has two sessions.
        """
        super().study(train)
        times = train.store.times
        if times is None:
            raise DataError(
                "model hgru4rec needs sessions, which it tells from pauses between events, but the data has no times: "
                f"give them (ensue prepare --time COLUMN), {INSTEAD}"
            )
        lengths = np.asarray(train.stop_R - train.start_R)
        if begins_session(times[train.events_P], lengths[lengths > 0], self.session_gap).sum() == (lengths > 0).sum():
            raise DataError(
                f"model hgru4rec needs users with several sessions, but nobody pauses for more than {self.session_gap} "
                f"seconds: lower session_gap (--session-gap), {INSTEAD}"
            )

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D + 1].

        Raises:
            DataError: the batch has no times of events, or not that of the request and the model reads it.
        """
        if batch.times_P is None:
            raise DataError(
                "model hgru4rec tells sessions from pauses between events: give their times (times=, --times), "
                f"{INSTEAD}"
            )
        lengths_B, times_P = batch.lengths_B.cpu().numpy(), batch.times_P.cpu().numpy()
        is_new_P = begins_session(times_P, lengths_B, self.session_gap)
        h_PD, next_SD = self._unrolled(batch, is_new_P, lengths_B)
        if self.query_time:
            if batch.query_times_P is None:
                raise DataError("this model was trained with query_time: give the time of the request (at=, --at)")
            is_over_P = batch.query_times_P - batch.times_P > self.session_gap
            session_P = torch.from_numpy(is_new_P.cumsum() - 1).to(h_PD.device)
            h_PD = torch.where(is_over_P[:, None], next_SD[session_P], h_PD)
        return with_one(batch.layout.choose(h_PD))

    def _unrolled(self, batch: SequenceBatch, is_new_P: np.ndarray, lengths_B: np.ndarray) -> tuple[Tensor, Tensor]:
        """The states of all events, [P, D], and those at which a session after each session would begin, [S, D]."""
        x_PD = self.dropout(self.events(batch))
        layers, width = self.session.num_layers, self.session.hidden_size
        start_LGD = x_PD.new_zeros(layers, len(lengths_B), width)
        user_GD, earlier_GMD = start_LGD[0], x_PD.new_zeros(len(lengths_B), 0, width)
        context_GD = user_GD
        slots_GKD = x_PD.new_zeros(len(lengths_B), 0 if self.memory is None else len(self.memory.keys), width)
        states, events, following, numbers = [], [], [], []
        for step in session_steps(is_new_P, lengths_B):
            layout, kept_G = step.layout.to(x_PD.device), step.kept_G.to(x_PD.device)
            events_p = step.events_p.to(x_PD.device)
            start_LGD, user_GD, context_GD = start_LGD[:, kept_G], user_GD[kept_G], context_GD[kept_G]
            earlier_GMD, slots_GKD = earlier_GMD[kept_G], slots_GKD[kept_G]
            outputs = self._session(x_PD[events_p], layout, start_LGD, context_GD)
            last_GD = layout.unpad(outputs)[layout.last_B]
            h_pD = layout.unpad(self._with_earlier(outputs, layout.split_rows(earlier_GMD)))
            states.append(self.hidden_dropout(h_pD))
            events.append(events_p)
            user_GD = context_GD = self.user_dropout(self.user(last_GD, user_GD))
            earlier_GMD = torch.cat((earlier_GMD, last_GD[:, None]), 1)
            if self.memory is not None:
                slots_GKD = self.memory.write(slots_GKD, last_GD)
                context_GD = user_GD + self.memory.read(slots_GKD, user_GD)
            start_LGD = self.start(context_GD).tanh().unflatten(1, (layers, width)).transpose(0, 1)
            following.append(start_LGD[-1])
            numbers.append(step.number_G.to(x_PD.device))
        return torch.cat(states)[torch.cat(events).argsort()], torch.cat(following)[torch.cat(numbers).argsort()]

    def _session(self, x_pD: Tensor, layout: Layout, start_LGD: Tensor, context_GD: Tensor) -> list[Tensor]:
        """The states of the events of one session of each row, [G, T, D] per group of the layout."""
        rectangles, contexts = layout.pad(x_pD), layout.split_rows(context_GD)
        starts = [start.transpose(0, 1).contiguous() for start in layout.split_rows(start_LGD.transpose(0, 1))]
        if self.feeds:
            rectangles = [
                torch.cat((x_GTD, context_GD[:, None].expand(-1, x_GTD.shape[1], -1)), -1)
                for x_GTD, context_GD in zip(rectangles, contexts, strict=True)
            ]
        return [self.session(x_GTD, start)[0] for x_GTD, start in zip(rectangles, starts, strict=True)]

    def _with_earlier(self, outputs: list[Tensor], earlier: list[Tensor]) -> list[Tensor]:
        if self.attention is None or not earlier[0].shape[1]:
            return outputs
        return [self.attention(h_GTD, s_GMD) for h_GTD, s_GMD in zip(outputs, earlier, strict=True)]


MODELS.register("hgru4rec")(ModelEntry(HGRU4RecConfig, HGRU4Rec))

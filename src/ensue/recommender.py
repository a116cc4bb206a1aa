"""The public interface: read a log, fit a model, recommend, evaluate, save and load.

Suffixes: `N` items, `D` width of a vector, `T` events of one history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from ensue.batches.batch import SequenceBatch, query_times
from ensue.data.featured import with_inputs
from ensue.data.nested import is_lists
from ensue.data.split import Cases, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import ExternalId
from ensue.errors import ConfigError, DataError, EnsueError, nearest
from ensue.evaluation.cold import groups_of
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.lists import other_metrics
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.models import Encoder
from ensue.reading import Data, open_data, read
from ensue.recipes import configure, fixed, planned, run_config
from ensue.recommend_all import retrieve_all
from ensue.recommendations import Recommendation, Recommendations
from ensue.reranking import Reranking
from ensue.retrieval import CANDIDATES
from ensue.retrieval.index import ExactIndex, top_k
from ensue.retrieval.probabilities import Probabilities, most_probable, shares
from ensue.retrieval.request import feature_codes, ids_of, moment, path_of, seconds, switch, whole
from ensue.retrieval.retriever import Exhaustive, Retriever
from ensue.retrieval.scores import CountProgress
from ensue.runs.config import RunConfig
from ensue.runs.evaluations import check_evaluated, save_evaluation
from ensue.runs.folder import LOG
from ensue.runs.load import load_run
from ensue.runs.log import Records, Watcher, read_log
from ensue.runs.run import Run
from ensue.runs.save import save_run
from ensue.runtime.devices import cpu_threads
from ensue.runtime.forks import check_process
from ensue.train.fit import fit

PARTS = ("test", "validation")


class Recommender:
    """A model given by name or recipe, with its settings and, after `fit` or `load`, everything needed to recommend.

    Args:
        model: name of a model, such as "sasrec", "tisasrec", "markov" or "popularity".
        preset: name of a recipe to start from; `ensue presets` lists them.
        settings: any field of the run's settings by its flat name, such as `hidden_units=64, loss="ce"`. Without a
            preset, and without a model or with "sasrec", `fit` chooses the other settings from the data.

    Attributes:
        config: the run's settings.
        run: the fitted run; None before `fit`.
        log: the records of training, one per epoch.
        reranking: the second stage that `rerank` adds; None without one.
    """

    config: RunConfig
    run: Run | None
    log: Records

    def __init__(self, model: str | None = None, preset: str | None = None, **settings: Any) -> None:
        self.config = run_config(model, preset, settings)
        self.configure = configure(model, preset, settings)
        self._configure_lists = self.configure
        if SplitConfig.model_fields.keys().isdisjoint(settings):
            self._configure_lists = configure(model, preset, {**settings, "split": "none"})
        self.run, self.log = None, []
        self._retriever: Retriever | None = None
        self.reranking: Reranking | None = None

    def __repr__(self) -> str:
        fitted = "not fitted" if self.run is None else f"fitted, {len(self.run.item_ids):,} items"
        return f"Recommender({self.config.model.name!r}, {fitted})"

    @classmethod
    def from_config(cls, config: RunConfig) -> Self:
        """A recommender with a complete configuration."""
        self = cls.__new__(cls)
        self.config, self.run, self.log = config, None, []
        self.configure = self._configure_lists = fixed(config)
        self._retriever = self.reranking = None
        return self

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Open a run folder written by `save`, `fit(folder=...)` or `ensue train`.

        Raises:
            ArtefactError: a file is missing, altered or foreign.
        """
        path = path_of("folder", folder)
        return cls.from_run(load_run(path), read_log(path / LOG))

    @classmethod
    def from_run(cls, run: Run, log: Records) -> Self:
        """A recommender from a trained model and the records of its training."""
        self = cls.from_config(run.config)
        self.run, self.log = run, log
        return self

    def fit(
        self,
        data: Data,
        folder: str | Path | None = None,
        watchers: Iterable[Watcher] = (),
        budget: float | None = None,
        finish: bool = False,
    ) -> Self:
        """Train on the training part of the split; keep the state that is best on validation.

        Args:
            data: a store or its folder, or a log to prepare with the default settings; or sequences as lists of item
                ids, oldest first, such as `[[1, 2, 3, 4], [1, 2, 5]]`, which all train unless a `split` was given.
            folder: where the run is saved: a new or empty folder, or one whose interrupted training is resumed. A
                finished run in the folder is loaded; with a larger `num_epochs` its training is continued.
            watchers: observers of the training.
            budget: minutes that training may take; the number of epochs is reduced to fit.
            finish: train no further, and write the run from the best state of the training in the folder.

        Raises:
            DataError: the log cannot be read, or the training part has no events to predict.
            TrainingError: the folder contains a run of other data or settings, another training writes there, or the
                loss is not finite.
            ArtefactError: the folder contains files that ensue did not create.
        """
        store = open_data(data)
        path = None if folder is None else path_of("folder", folder)
        if not isinstance(watchers, Iterable):
            raise ConfigError(f"watchers must be a list of watchers (got {watchers!r})")
        self.config = planned(self._configure_lists if is_lists(data) else self.configure, store, path, budget)
        fitted = fit(self.config, store, path, watchers, finish=finish)
        self.run, self.log = fitted.run, fitted.log
        return self

    def save(self, folder: str | Path) -> None:
        """Write a run folder; files are written whole or not at all.

        Raises:
            ArtefactError: the folder contains files that ensue did not create.
            TrainingError: the folder contains a run of other data or settings, or a training writes there.
        """
        save_run(path_of("folder", folder), self._run(), self.log)

    def recommend(
        self,
        history: Iterable[ExternalId],
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[int] | None = None,
        at: int | None = None,
        probabilities: bool = False,
        features: Mapping[str, Any] | None = None,
    ) -> Recommendations:
        """Recommend the next items after a history.

        Args:
            history: external ids, oldest first. Unknown ids are skipped and reported; if none is left, the most popular
                items are returned, with a note.
            k: number of items; fewer are returned if fewer are left.
            exclude_seen: leave out the items of the history.
            times: time of each event in seconds since the epoch, for models that read times.
            at: time of the request in seconds since the epoch, for models trained with `query_time`.
            probabilities: return scores as probabilities, which sum to 1 over all items that may be recommended.
            features: for a model that reads features of events or users: name -> the value of each item of the history,
                or the value of the user; None for an unknown value. Features of items are known.

        Raises:
            EnsueError: `k` is not a whole number of 1 or more, the model was not fitted, or its scores are not
                probabilities.
            ConfigError: `at` is given to a model that was not trained with `query_time`, or a feature to one that does
                not read it.
            DataError: the history is not a list of ids (a string is refused); the times are not seconds, are too few or
                too many, decrease, or are after the request; or the model reads times or a feature that is missing.
        """
        run = self._run()
        k = whole("k", k)
        history = ids_of("history", history)
        times_T = None if times is None else seconds(times, len(history))
        newest = None if times_T is None or len(times_T) == 0 else int(times_T[-1])
        at = moment(at, newest, (self.reranking or run).request_model)
        numbers = run.item_ids.encode(history)
        codes = feature_codes((self.reranking or run).features, features, len(history))
        unknown = tuple(item for item, number in zip(history, numbers, strict=True) if number == 0)
        known = numbers > 0
        seen = torch.from_numpy(np.unique(numbers[known]).astype(np.int64))
        note = None
        normalised = Probabilities(run.model, run.config.objective) if switch("probabilities", probabilities) else None
        exclude = (torch.zeros_like(seen), seen) if switch("exclude_seen", exclude_seen) else None
        if known.any():
            codes = codes and {name: codes_T[known] for name, codes_T in codes.items()}
            batch = self._batch(numbers[known], None if times_T is None else times_T[known], at, codes)
            with torch.inference_mode():
                scores, items = (normalised or self.retriever)(batch, k, exclude)
        else:
            popular_1N = run.popularity_N.clone()[None]
            best = most_probable(shares, popular_1N, k, exclude) if normalised else top_k(popular_1N, k, exclude)
            scores, items = best
            note = "no known item in the history: these are the most popular items"
        return Recommendations(self._named(items[0], scores[0]), unknown, note)

    def recommend_all(
        self,
        data: Data,
        k: int = 10,
        users: Iterable[ExternalId] | None = None,
        exclude_seen: bool = True,
        at: int | None = None,
        progress: CountProgress | None = None,
    ) -> pl.DataFrame:
        """Recommend the next items for all users of a data set, after all their events; faster than one by one.

        Args:
            data: a store, its folder, or a log. The users may differ from those that the model was trained on.
            k: number of items per user; fewer are returned if fewer are left.
            users: external ids, each once; by default all users of the data.
            exclude_seen: leave out the items of the history.
            at: time of the requests in seconds since the epoch, for models trained with `query_time`.
            progress: called with (users done, number of users).

        Returns:
            One row per recommendation, in the order of `users`, best first: `user`, `rank` from 1, `item`, `score`,
            `history`, and `title` if titles are known. `history` is the number of the user's events with known items.
            If it is 0, the items are the most popular ones and the score is their number of training events.

        Raises:
            EnsueError: `k` is not a whole number of 1 or more, or the model was not fitted.
            ConfigError: `at` is given to a model that was not trained with `query_time`.
            DataError: the data cannot be read, lacks a user or times that the model reads, or has events after `at`.
        """
        run = self._run()
        with cpu_threads(run.config.train.threads):
            exclude_seen = switch("exclude_seen", exclude_seen)
            k, store = whole("k", k), open_data(data)
            return retrieve_all(run, self.retriever, store, k, users, exclude_seen, at, progress, self.reranking)

    def similar(self, item: ExternalId, k: int = 10) -> Recommendations:
        """The items whose vectors have the largest cosine with this item's.

        Raises:
            DataError: the item is not in the model's vocabulary.
            EnsueError: the model has no item vectors, or `k` is not a whole number of 1 or more.
        """
        run = self._run()
        k = whole("k", k)
        number = int(run.item_ids.encode([item])[0])
        if number == 0:
            raise DataError(f"item {item!r} is not among the {len(run.item_ids):,} items of this model")
        if not isinstance(run.model, Encoder):
            raise EnsueError(f"model {run.config.model.name!r} has no item vectors: similar needs an encoder")
        with torch.inference_mode():
            unit_ND = torch.nn.functional.normalize(run.model.item_vectors().float(), dim=-1)
            scores, items = ExactIndex(unit_ND).search(
                unit_ND[number - 1 : number], k, (torch.tensor([0]), torch.tensor([number]))
            )
        return Recommendations(self._named(items[0], scores[0]))

    def evaluate(
        self,
        data: Data,
        part: str = "test",
        config: EvaluateConfig | None = None,
        folder: str | Path | None = None,
        progress: CountProgress | None = None,
    ) -> tuple[dict[str, float], Standings]:
        """Rank the held-out events of the run's split.

        Args:
            data: the store that the model was trained on, its folder, or the log given to `fit`.
            part: "test" or "validation".
            config: protocol and metrics; by default those of the run. `query_time` always follows the model.
            folder: the folder in which this run is saved; the results are added to it.
            progress: called with (cases done, number of cases).

        Returns:
            The mean of every metric, and the standing of each case.

        Raises:
            DataError: the store is not the one that the model was trained on.
            ConfigError: `part` is unknown, or `config` is not an `EvaluateConfig`.
            ArtefactError: the folder does not contain this run.
        """
        run = self._run()
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r}: {nearest(str(part), PARTS)}")
        if config is not None and not isinstance(config, EvaluateConfig):
            raise ConfigError(f"config must be an EvaluateConfig (got {config!r})")
        path = None if folder is None else path_of("folder", folder)
        store = open_data(data)
        run.check_data(store)
        config = (config or run.config.evaluate).replace(query_time=run.config.evaluate.query_time, rerank=0)
        config = config if self.reranking is None else self.reranking.protocol(config)
        if path is not None:
            check_evaluated(path, run, f"{part}/{config.key}")
        split = make_split(with_inputs(store, (self.reranking or run).features), run.config.split)
        cases: Cases = split.test if part == "test" else split.validation
        further: dict[str, Any] = {}
        with cpu_threads(run.config.train.threads):
            if self.reranking is None:
                standings = evaluate(run.model, cases, config, split.train, progress)
            else:
                standings, further = self.reranking.evaluate(self._first, cases, config, progress)
            probable = None if self.reranking else lambda: Probabilities(run.model, run.config.objective)
            others = other_metrics(self.retriever, cases, config, split.train, standings, probable)
        groups = groups_of(standings, split.train)
        standings = replace(standings, others=others, groups=groups)
        if path is not None:
            save_evaluation(path, run, store, part, config, standings, further)
        return standings.means(config), standings

    @property
    def retriever(self) -> Retriever:
        """The retriever of `recommend` and `recommend_all`; by default it scores the whole catalogue.

        Set it to another one, such as `VectorSearch(model, index)`, for a large catalogue.
        """
        return self._first if self.reranking is None else self.reranking.retriever(self._first)

    @retriever.setter
    def retriever(self, retriever: Retriever) -> None:
        self._retriever = retriever

    @property
    def _first(self) -> Retriever:
        return self._retriever or Exhaustive(self._run().model)

    def rerank(self, ranker: Self | str | Path, candidates: int = CANDIDATES, weight: float = 1.0) -> Self:
        """Let another model order the best candidates of this one, in recommending and in `evaluate`.

        Args:
            ranker: a fitted recommender, or its run folder, of the same data and split.
            candidates: number of candidates; no more items are recommended.
            weight: share of the ranker in the order, above 0; less than 1 mixes in the scores of this model.

        Raises:
            ConfigError: a number is out of range.
            DataError: the two were trained on different data or splits.
        """
        other = ranker if isinstance(ranker, Recommender) else type(self).load(ranker)
        self.reranking = Reranking(self._run(), other._run(), whole("candidates", candidates), float(weight))
        return self

    def _batch(
        self, numbers: np.ndarray, times: np.ndarray | None, at: int | None, codes: Mapping[str, np.ndarray] | None
    ) -> SequenceBatch:
        """One history as a batch on the model's device; its newest event is asked."""
        model = self.retriever.model
        numbers = numbers[-model.maxlen :]
        times = None if times is None else times[-model.maxlen :]
        lengths = np.array([len(numbers)])
        request = None if times is None or at is None else query_times(times, lengths, np.array([at]))
        codes = codes and {name: codes_T[-model.maxlen :] for name, codes_T in codes.items()}
        return SequenceBatch.from_numpy(numbers, lengths, times, request, features=codes).to(model.device)

    def _named(self, items: torch.Tensor, scores: torch.Tensor) -> tuple[Recommendation, ...]:
        run = self._run()
        pairs = [(n, s) for n, s in zip(items.tolist(), scores.tolist(), strict=True) if s > float("-inf")]
        ids = run.item_ids.decode([number for number, _ in pairs])
        titles = run.titles
        return tuple(
            Recommendation(item, score, titles[number] if titles else None)
            for item, (number, score) in zip(ids, pairs, strict=True)
        )

    def _run(self) -> Run:
        check_process()
        if self.run is None:
            raise EnsueError("this recommender has no model yet: call fit, or Recommender.load(folder)")
        return self.run


def history_of(store: SequenceStore, user: ExternalId) -> tuple[list[ExternalId], list[int] | None]:
    """A user's items, oldest first, and their times if the store has them.

    Raises:
        DataError: the user is not in the store.
    """
    number = int(store.users.encode([user])[0])
    if number == 0:
        raise DataError(f"user {user!r} is not among the {store.num_users:,} users of this data")
    events = slice(int(store.offsets[number - 1]), int(store.offsets[number]))
    times = None if store.times is None else store.times[events].tolist()
    return store.item_ids.decode(store.items[events]), times


__all__ = ["Recommendation", "Recommendations", "Recommender", "history_of", "read"]

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.vocabulary import Vocabulary, canonical_ints
from ensue.errors import ArtefactError, DataError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
INTS = st.integers(-(2**63), 2**63 - 1)


@given(st.one_of(st.sets(TEXTS, min_size=1), st.sets(INTS, min_size=1)))
def test_every_id_comes_back_as_it_was(ids):
    vocabulary = Vocabulary.from_ids(list(ids))
    ordered = sorted(ids)
    assert vocabulary.decode(range(1, len(ids) + 1)) == ordered
    assert vocabulary.encode(ordered).tolist() == list(range(1, len(ids) + 1))


@given(st.permutations(["b", "a", "007", "NA", "ö", "z" * 30]))
def test_numbers_do_not_depend_on_row_order(ids):
    one, other = Vocabulary.from_ids(ids), Vocabulary.from_ids(sorted(ids))
    assert one == other
    assert one.ids.to_list() == other.ids.to_list()


def test_a_text_finds_an_integer_only_in_canonical_form():
    vocabulary = Vocabulary.from_ids([7, -3, 9007199254740993])
    texts = [
        "7",
        "007",
        "7.0",
        " 7",
        "+7",
        "-3",
        "-03",
        "9007199254740993",
        "9007199254740992",
        "1" * 5000,
        "\u0667",
    ]
    expected = [2, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0]
    assert vocabulary.encode(texts).tolist() == expected
    assert vocabulary.encode(pl.Series(texts * 500)).tolist() == expected * 500


def test_an_integer_is_unknown_to_a_vocabulary_of_texts():
    vocabulary = Vocabulary.from_ids(["7", "a"])
    assert vocabulary.encode([7, "7", None, True]).tolist() == [0, 1, 0, 0]
    assert vocabulary.encode(pl.Series([7] * 5000)).sum() == 0


def test_bulk_and_single_lookups_agree():
    for ids in (["u1", "u2", "u10"], [1, 2, 10]):
        vocabulary = Vocabulary.from_ids(ids)
        asked = pl.Series([ids[2], ids[0]] * 3000 + [None])
        assert vocabulary.encode(asked).tolist() == vocabulary.encode(asked.to_list()).tolist()


@given(st.one_of(INTS.map(str), TEXTS, st.sampled_from(["-0", "00", "+1", "1e5", "9223372036854775808"])))
def test_canonical_ints_are_those_that_print_the_same(text):
    result = canonical_ints(pl.Series([text])).to_list()[0]
    try:
        value = int(text)
        canonical = str(value) == text and -(2**63) <= value < 2**63
    except ValueError:
        canonical = False
    assert result == (int(text) if canonical else None)


@pytest.mark.parametrize("number", [0, 3, -1])
def test_numbers_outside_are_refused(number):
    with pytest.raises(DataError, match=f"number {number} has no id"):
        Vocabulary.from_ids(["a", "b"]).decode([number])


def test_bad_ids_are_refused():
    with pytest.raises(DataError, match="got both"):
        Vocabulary.from_ids([1, "a"])
    with pytest.raises(DataError, match=r"1\.5"):
        Vocabulary.from_ids(["a"]).encode([1.5])
    with pytest.raises(DataError, match="int64"):
        Vocabulary.from_ids([2**63])
    with pytest.raises(DataError, match="sorted and distinct"):
        Vocabulary(pl.Series([2, 1]))
    with pytest.raises(DataError, match="strings or integers"):
        Vocabulary(pl.Series([1.0]))


def test_files_keep_ids_and_digest(tmp_path):
    for vocabulary in (Vocabulary.from_ids(["007", "NA", ""]), Vocabulary.of_range(5)):
        vocabulary.write(tmp_path / "v.parquet")
        assert Vocabulary.read(tmp_path / "v.parquet") == vocabulary
    (tmp_path / "v.parquet").write_bytes(b"nothing")
    with pytest.raises(ArtefactError, match=r"v\.parquet"):
        Vocabulary.read(tmp_path / "v.parquet")


def test_the_digest_distinguishes_what_joining_would_merge():
    assert Vocabulary.from_ids(["ab", "c"]) != Vocabulary.from_ids(["a", "bc"])
    assert Vocabulary.from_ids(["1"]) != Vocabulary.from_ids([1])

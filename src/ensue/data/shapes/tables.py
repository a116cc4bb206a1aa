"""The published tables: one declaration each, the more specific ones of similar columns first.

What they look like, and how that was confirmed, is in docs/data-shapes.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ensue.data.shape import SHAPES, Recogniser, Sample, Shape, with_rows, with_times
from ensue.data.shapes.published import Published
from ensue.data.table import Table

_ANY, _NUMBER = r"[\s\S]*", r"\d+"
_ISO = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}"
_UTC, _UTC_MS, _DATE_TIME = f"{_ISO}Z", rf"{_ISO}\.\d{{3}}Z", "%Y-%m-%d %H:%M:%S"
_TWITTER = r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d{1,2} \d{2}:\d{2}:\d{2} [+-]\d{4} \d{4}"
_PLACE, _CHECK_IN = [r"-?\d*\.?\d*"] * 2, "user, time, latitude, longitude and place"
_MBID = r"[0-9a-f-]{36}|"
# Amazon's product ids have ten characters: B and nine more, or an ISBN. Ids of newer users have up to 28.
_ASIN, _REVIEWER = "B[0-9A-Z]{9}|[0-9]{9}[0-9X]", "A[0-9A-Z]{10,27}"
_STARS, _SECONDS = r"[0-5](\.\d+)?", r"\d{8,10}"
_RATING, _REVIEW = (_NUMBER, _NUMBER, _STARS, _SECONDS), "reviewerID asin overall unixReviewTime"
_ALL_KINDS, _SHOWN = "events of all kinds are read alike", "everything that was shown is an event"
_NO_TIMES, _TAGS = "no times: the order of rows is used", "each row is a tag that the user gave"


def _text(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String).str.strip_chars()


def _date(column: str, form: str) -> pl.Expr:
    return _text(column).str.to_datetime(form, strict=False, time_unit="us")


def _twitter(column: str) -> pl.Expr:
    """UTC of a time such as `Tue Apr 03 18:00:09 +0000 2012`; null if the text has another format."""
    # The day of the week is redundant, and polars refuses some correct ones when the offset shifts the date.
    plain = _text(column).str.replace(r"^[A-Z][a-z]{2} ", "")
    return plain.str.to_datetime("%b %d %H:%M:%S %z %Y", strict=False, time_unit="us").dt.replace_time_zone(None)


def _inside_day(day: str, milliseconds: str) -> pl.Expr:
    inside = pl.col(milliseconds).cast(pl.Int64, strict=False) * 1_000
    return _date(day, "%Y-%m-%d") + inside.cast(pl.Duration("us"))


def _month_and_day(column: str, year: str) -> pl.Expr:
    return (pl.lit(year) + _text(column).str.zfill(4)).str.to_datetime("%Y%m%d", strict=False, time_unit="us")


def _since_start(column: str, seconds: int) -> pl.Expr:
    """Times that count steps of some seconds from the start of the log, as if that were 1970."""
    return pl.from_epoch(pl.col(column).cast(pl.Int64, strict=False) * seconds, "s")


def _hour(column: str) -> pl.Expr:
    return (_text(column) + ":00").str.to_datetime("%Y-%m-%d %H:%M", strict=False, time_unit="us")


def _items_only(table: Table) -> Table:
    """Trivago: the reference is an item only if it is a number; for searches and filters it is a text."""
    is_item = pl.col("reference").str.contains(r"^\d+$")
    return with_rows(table, table.rows.with_columns(pl.when(is_item).then("reference").alias("item")))


def _track_names(table: Table) -> Table:
    return with_rows(table, table.rows.with_columns((pl.col("4") + " - " + pl.col("6")).alias("track")))


def _linked(table: Table) -> Table:
    """30Music: the user and the track of an event, from its JSON."""
    links = [pl.col("5").str.json_path_match(f"$.{name}[0].id").alias(name) for name in ("subjects", "objects")]
    return with_rows(table, table.rows.with_columns(links))


def _sessions(table: Table) -> Table:
    """Amazon-M2: `['B09W9FND7K' 'B09JSPLN1M']`, as numpy writes it, and the item after it, except in test files."""
    items = pl.col("prev_items").fill_null("").str.extract_all(r"[^\s'\",\[\]]+")
    if "next_item" in table.names:
        items = pl.concat_list(items, pl.col("next_item"))
    rows = table.rows.with_row_index("user", offset=1)
    return with_rows(table, rows.select(pl.col("user").cast(pl.String), items.alias("item")).explode("item"))


NAMED: Sequence[Published] = (
    Published(
        "diginetica",
        "sessionId itemId time",
        "sessionId itemId timeframe eventdate",
        "the user is the session",
        with_times("time", _inside_day("eventdate", "timeframe")),
    ),
    Published(
        "retailrocket", "visitorid itemid timestamp", "timestamp visitorid event itemid transactionid", _ALL_KINDS
    ),
    Published(
        "trivago",
        "session_id item timestamp",
        "user_id session_id timestamp step action_type reference",
        "the user is the session; actions without an item are dropped",
        _items_only,
    ),
    Published(
        "ijcai-15",
        "user_id item_id time",
        "user_id item_id cat_id seller_id brand_id time_stamp action_type",
        "month and day of 2014",
        with_times("time", _month_and_day("time_stamp", "2014")),
    ),
    Published(
        "ijcai-16",
        "use_ID ite_ID day",
        "use_ID sel_ID ite_ID cat_ID act_ID time",
        _ALL_KINDS,
        with_times("day", _date("time", "%Y%m%d")),
    ),
    Published("rec-tmall", "user_id item_id vtime", "user_id item_id action vtime", _ALL_KINDS),
    Published(
        "tianchi",
        "user_id item_id hour",
        "user_id item_id behavior_type item_category time",
        _ALL_KINDS,
        with_times("hour", _hour("time")),
    ),
    Published("jdata", "user_id sku_id time", "user_id sku_id time model_id type cate brand", _ALL_KINDS),
    Published(
        "rees46",
        "user_id product_id time",
        "event_time event_type product_id category_id user_id user_session",
        _ALL_KINDS,
        with_times("time", _date("event_time", "%Y-%m-%d %H:%M:%S UTC")),
    ),
    Published("lastfm-2k", "userID artistID timestamp", "userID artistID tagID timestamp", _TAGS),
    Published("lastfm-2k", "userID artistID - weight", "userID artistID weight", _NO_TIMES),
    Published("delicious", "userID bookmarkID timestamp", "userID bookmarkID tagID timestamp", _TAGS),
    Published(
        "yambda",
        "uid item_id time",
        "uid timestamp item_id is_organic",
        "times start at 0",
        with_times("time", _since_start("timestamp", 1)),
    ),
    Published(
        "foursquare",
        "userId venueId time",
        "userId venueId venueCategoryId utcTimestamp",
        change=with_times("time", _twitter("utcTimestamp")),
    ),
    Published("hm", "customer_id article_id t_dat", "t_dat customer_id article_id"),
    Published(
        "ta-feng",
        "CUSTOMER_ID PRODUCT_ID day",
        "TRANSACTION_DT CUSTOMER_ID PRODUCT_ID AMOUNT",
        "dates are month/day/year",
        with_times("day", _date("TRANSACTION_DT", "%m/%d/%Y")),
    ),
    Published(
        "online-retail",
        "CustomerID StockCode time",
        "InvoiceNo StockCode Quantity InvoiceDate CustomerID",
        "dates are month/day/year; returns (a negative quantity) are events too",
        with_times("time", pl.coalesce(_date("InvoiceDate", "%m/%d/%Y %H:%M"), _date("InvoiceDate", _DATE_TIME))),
        latin=True,
    ),
    Published(
        "instacart",
        "order_id product_id",
        "order_id product_id add_to_cart_order reordered",
        f"the user is the order, since users are in orders.csv; {_NO_TIMES}",
    ),
    Published(
        "amazon-m2",
        "user item",
        "prev_items locale",
        "each row is a session, prev_items and then next_item; no times",
        events=_sessions,
        reading={"multiline": True},
    ),
    Published(
        "goodreads",
        "user_id book_id time rating",
        "user_id book_id rating date_added",
        change=with_times("time", _twitter("date_added")),
    ),
    Published("goodreads", "user_id book_id - rating", "user_id book_id is_read rating is_reviewed", _NO_TIMES),
    Published(
        "book-crossing",
        "User-ID ISBN - Book-Rating",
        "User-ID ISBN Book-Rating",
        f"{_NO_TIMES}; a rating of 0 is implicit",
        latin=True,
    ),
    Published("amazon-2018", "reviewerID asin unixReviewTime overall", f"{_REVIEW} verified"),
    Published("amazon-2014", "reviewerID asin unixReviewTime overall", _REVIEW),
    Published("amazon-2023", "user_id parent_asin timestamp rating", "user_id parent_asin rating timestamp"),
    Published("yelp", "user_id business_id date stars", "review_id user_id business_id stars date"),
    Published("yelp", "user_id business_id date", "user_id business_id date"),
    Published(
        "food.com", "user_id recipe_id date rating", "user_id recipe_id date rating", reading={"multiline": True}
    ),
    Published(
        "douban", "Username Movie_Name_EN Date Star", "Movie_Name_EN Username Date Star", reading={"multiline": True}
    ),
    Published(
        "anime", "user_id anime_id - rating", "user_id anime_id rating", f"{_NO_TIMES}; a rating of -1 is no rating"
    ),
    Published(
        "kuairec",
        "user_id video_id timestamp",
        "user_id video_id play_duration video_duration timestamp watch_ratio",
        _SHOWN,
    ),
    Published("kuairand", "user_id video_id time_ms", "user_id video_id date hourmin time_ms", _SHOWN),
    Published("tenrec", "user_id item_id", "user_id item_id click follow like share", f"{_SHOWN}; {_NO_TIMES}"),
    Published("movielens", "userId movieId timestamp rating", "userId movieId rating timestamp"),
)

UNNAMED: Sequence[Published] = (
    Published(
        "yoochoose", "1 3 2", fields=(_NUMBER, _UTC_MS, _NUMBER, _ANY), evidence="session, time, item and category"
    ),
    Published(
        "yoochoose",
        "1 3 2",
        fields=(_NUMBER, _UTC_MS, _NUMBER, _ANY, _ANY),
        evidence="session, time, item, price and quantity",
    ),
    Published(
        "rec-tmall",
        "2 1 4",
        note=_ALL_KINDS,
        fields=(_NUMBER, _ANY, "click|collect|cart|alipay", r"\d{4}[-/]\d{1,2}[-/]\d{1,2} .+"),
        evidence="item, user, action (click, collect, cart or alipay) and time",
    ),
    Published(
        "taobao",
        "1 2 5",
        note=_ALL_KINDS,
        fields=(_NUMBER, _NUMBER, _NUMBER, "pv|buy|cart|fav", r"-?\d+"),
        evidence="user, item, category, behaviour (pv, buy, cart or fav) and seconds",
    ),
    Published(
        "lastfm-1k",
        "1 track 2",
        note="the item is artist and track by name, as track ids may be empty",
        change=_track_names,
        fields=(r"user_\d{6}", _UTC, _MBID, _ANY, _ANY, _ANY),
        separator="\t",
        evidence="user_000001, time, artist and track",
        reading={"quotes": False},
    ),
    Published(
        "lastfm-360k",
        "1 3 - 4",
        note=f"the item is the artist; {_NO_TIMES}",
        fields=("[0-9a-f]{40}", _MBID, _ANY, r"\d+ ?"),
        separator="\t",
        evidence="SHA-1 of the user, artist and plays",
        reading={"quotes": False},
    ),
    Published(
        "30music",
        "subjects objects 3",
        change=_linked,
        fields=(r"event\.\w+", _NUMBER, _NUMBER, _ANY, r'\{.*"subjects".*\}'),
        separator="\t",
        evidence="event, number, seconds, properties, and user and track as JSON",
        reading={"quotes": False},
    ),
    Published(
        "twitch",
        "1 3 time",
        note="the item is the streamer; times start at 0, in steps of ten minutes",
        change=with_times("time", _since_start("4", 600)),
        fields=(_NUMBER, r"\d{10,12}", r"[a-z0-9_]+", r"\d{1,4}", r"\d{1,4}"),
        separator=",",
        evidence="user, stream, streamer, start and stop",
    ),
    Published(
        "gowalla", "1 5 2", fields=(_NUMBER, _UTC, *_PLACE, _NUMBER), separator="\t", evidence=f"{_CHECK_IN} (a number)"
    ),
    Published("brightkite", "1 5 2", fields=(_NUMBER, _UTC, *_PLACE, r"\w*"), separator="\t", evidence=_CHECK_IN),
    Published(
        "foursquare",
        "1 2 time",
        change=with_times("time", _twitter("8")),
        fields=(_ANY, "[0-9a-f]{24}", "[0-9a-f]{24}", *[_ANY] * 4, _TWITTER),
        evidence="eight fields that end in a time such as 'Tue Apr 03 18:00:09 +0000 2012',",
    ),
    Published(
        "amazon-2014", "1 2 4 3", fields=(_REVIEWER, _ASIN, _STARS, _SECONDS), evidence="user, ASIN, rating and seconds"
    ),
    Published(
        "amazon-2018",
        "2 1 4 3",
        note="the product comes first",
        fields=(_ASIN, _REVIEWER, _STARS, _SECONDS),
        evidence="ASIN, user, rating and seconds",
    ),
    Published("movielens-100k", "1 2 4 3", fields=_RATING, separator="\t", evidence="user, movie, rating and seconds"),
    Published("movielens-dat", "1 2 4 3", fields=_RATING, separator="::", evidence="user, movie, rating and seconds"),
)


def _recogniser(tables: Sequence[Published]) -> Recogniser:
    def recognise(sample: Sample) -> Shape | None:
        return next((shape for table in tables if (shape := table.recognise(sample)) is not None), None)

    return recognise


for _name in dict.fromkeys(table.shape for table in (*UNNAMED, *NAMED)):
    SHAPES.register(_name)(_recogniser([table for table in (*UNNAMED, *NAMED) if table.shape == _name]))

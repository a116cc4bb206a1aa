"""HGRU4Rec: a recurrent network over a user's sessions above one over the events of a session.

Every walk goes round a ring of twelve items: three steps on one day, three on the next. After 3, 4, 5 comes 6.
"""

import polars as pl

from ensue import Recommender

DAY = 86_400
steps = [(user, (user + step) % 12 + 1, step // 3 * DAY + 60 * step) for user in range(12) for step in range(6)]
log = pl.DataFrame(steps, schema=["user", "item", "time"], orient="row")
small = {"maxlen": 8, "hidden_units": 32, "dropout_rate": 0.0, "num_epochs": 15, "batch_size": 12, "lr": 0.02}
model = Recommender("hgru4rec", loss="ce", split="none", **small).fit(log)
for entry in model.recommend([3, 4, 5], times=[0, 60, DAY], k=3):
    print(entry.item, round(entry.score, 2))

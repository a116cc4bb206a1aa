"""TIGER: each item is a tuple of codes, and the next item's codes are predicted one after another.

Every walk goes round a ring of twelve items, one step at a time: after 3, 4, 5 comes 6.
"""

from ensue import Recommender

walks = [[(start + step) % 12 + 1 for step in range(6)] for start in range(12)]
small = {"maxlen": 8, "hidden_units": 16, "dropout_rate": 0.0, "num_epochs": 20, "batch_size": 12, "lr": 0.02}
model = Recommender("tiger", loss="likelihood", code_levels=2, code_size=4, **small)
model.fit(walks)
for entry in model.recommend([3, 4, 5], k=3):
    print(entry.item, round(entry.score, 2))

"""FPMC: a factorised Markov chain beside the taste of each user, trained with BPR.

Every walk goes round a ring of twelve items, one step at a time: after 3, 4, 5 comes 6.
"""

from ensue import Recommender

walks = [[(start + step) % 12 + 1 for step in range(6)] for start in range(12)]
small = {"hidden_units": 16, "num_negatives": 4, "num_epochs": 30, "batch_size": 12, "lr": 0.05}
model = Recommender("fpmc", loss="bpr", **small).fit(walks)
for entry in model.recommend([3, 4, 5], k=3):
    print(entry.item, round(entry.score, 2))

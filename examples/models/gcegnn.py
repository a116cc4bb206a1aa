"""GCE-GNN: the graph of a session beside the graph of all sessions.

Every walk goes round a ring of twelve items, one step at a time: after 3, 4, 5 comes 6.
"""

from ensue import Recommender

walks = [[(start + step) % 12 + 1 for step in range(6)] for start in range(12)]
small = {"maxlen": 8, "hidden_units": 32, "dropout_rate": 0.0, "num_epochs": 15, "batch_size": 12, "lr": 0.02}
model = Recommender("gcegnn", loss="ce", **small).fit(walks)
for entry in model.recommend([3, 4, 5], k=3, probabilities=True):
    print(entry.item, round(entry.score, 2))

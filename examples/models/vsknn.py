"""Session neighbours: similar walks vote for the items that come after the newest shared one.

Every walk goes round a ring of twelve items, one step at a time: after 3, 4, 5 comes 6.
"""

from ensue import Recommender

walks = [[(start + step) % 12 + 1 for step in range(6)] for start in range(12)]
model = Recommender("vsknn", variant="stan", only_after=True, history_decay=0.5, distance_decay=0.5).fit(walks)
for entry in model.recommend([3, 4, 5], k=3):
    print(entry.item, round(entry.score, 2))

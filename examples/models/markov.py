"""Markov chains: what followed the last two items, with Kneser-Ney smoothing, and the item two steps before.

Every walk goes round a ring of twelve items, one step at a time: after 3, 4, 5 comes 6.
"""

from ensue import Recommender

walks = [[(start + step) % 12 + 1 for step in range(6)] for start in range(12)]
model = Recommender("markov", order=2, smoothing_method="kneser-ney", skips=1).fit(walks)
for entry in model.recommend([3, 4, 5], k=3, probabilities=True):
    print(entry.item, round(entry.score, 2))

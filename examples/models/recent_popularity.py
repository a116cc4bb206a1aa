"""Recent popularity: what everybody takes lately, whatever the history.

Item 6 is new, and all that the newest lists hold; events lose half their weight every ten.
"""

from ensue import Recommender

walks = [[(start + step) % 5 + 1 for step in range(6)] for start in range(12)] + [[6, 6, 7], [6, 7, 6]]
model = Recommender("recent-popularity", span=60, half_life=10).fit(walks)
for entry in model.recommend([3, 4, 5], k=3, probabilities=True):
    print(entry.item, round(entry.score, 2))

#!/usr/bin/env bash
# recbole 1.2.1, numpy 1.26.4, torch 2.13.0.
# The metric ShannonEntropy is documented as the diversity of the recommended items, -sum p(i) log p(i). The value is
# this sum divided by the number of different items, so it falls when more items share the places equally: a recommender
# that shows 1,000 items equally often has less "entropy" than one that shows two; the largest value is that of three.
# Guess: ln n for n items that are shown equally often.
# Seen: 1 item 0.0000, 2 items 0.3466, 3 items 0.3662, 10 items 0.2303, 100 items 0.0461, 1000 items 0.0069.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo "torch==2.13.0" > "$folder/constraints.txt"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet -c "$folder/constraints.txt" \
  recbole==1.2.1 numpy==1.26.4 pandas==2.2.3 torch==2.13.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
from recbole.config import Config
from recbole.evaluator import Collector, Evaluator

options = {"metrics": ["ShannonEntropy"], "topk": [1], "use_gpu": False, "metric_decimal_place": 6}
config = Config(model="Pop", dataset="lists", config_dict=options)
USERS = 6000
seen = {}
for items in (1, 2, 3, 10, 100, 1000):
    # Scores of 1,000 items (and of padding, item 0): the best item of user u is item u mod `items`, plus one.
    scores = torch.zeros(USERS, 1001)
    scores[:, 0] = -np.inf
    scores[torch.arange(USERS), torch.arange(USERS) % items + 1] = 1.0
    collector = Collector(config)
    collector.eval_batch_collect(scores, None, torch.arange(USERS), torch.ones(USERS, dtype=torch.long))
    seen[items] = Evaluator(config).evaluate(collector.get_data_struct())["shannonentropy@1"]
    print(f"{items} items: ShannonEntropy@1 {seen[items]:.4f}, -sum p log p {np.log(items):.4f}")
for items, value in seen.items():
    assert abs(value - np.log(items) / items) < 1e-3
assert seen[1000] < seen[100] < seen[10] < seen[2]
PYTHON

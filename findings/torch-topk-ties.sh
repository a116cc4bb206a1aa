#!/usr/bin/env bash
# torch 2.13.0, CPU: with tied scores, the 5 items of torch.topk(scores, 5) are not the first 5 of torch.topk(scores, 20).
#
# Expected: `sorted=True` and "the k largest elements" suggest that the result for a smaller k is a prefix of that for a
# larger one, so that a page of 5 recommendations shows the head of the list of 20. Seen: among equal scores, the order
# and the choice of the items at the cut-off depend on k; neither is by position. Every model with repeated scores is
# affected: popularity counts, neighbours, quantised vectors. A stable sort returns equal scores by position for any k.
#
# Output seen:
#   30 items: the first five of topk 20 differ from topk 5
#   1000 items: the first five of topk 20 differ from topk 5
#   20000 items: the first five of topk 20 differ from topk 5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
echo "torch==2.13.0" > "$folder/constraints.txt"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet -c "$folder/constraints.txt" torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch

generator = torch.Generator().manual_seed(0)
changed = True
for items in (30, 1000, 20_000):
    # Whole numbers from 0 to 19, as counts are: many items share the highest.
    scores = torch.randint(0, 20, (items,), generator=generator).float()
    five, twenty = (torch.topk(scores, k).indices.tolist() for k in (5, 20))
    stable = torch.sort(scores, descending=True, stable=True).indices.tolist()
    assert stable[:5] == stable[:20][:5]
    if five == twenty[:5]:
        print(f"{items} items: topk 5 is the prefix of topk 20")
    else:
        print(f"{items} items: the first five of topk 20 differ from topk 5")
        changed = False
sys.exit(changed)
PYTHON

#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6.
# The item factors of an SVD are usually taken as vt.T, a transposed view.
# safetensors.numpy.save stores the bytes in memory order under the shape of the
# view and raises nothing. The file is valid, its shape and sum are right, and
# every item owns components of other items. Guess: the array returns as saved.
# Seen: saved [[0,1,2],[3,4,5]], loaded [[0,3,1],[4,2,5]]; a C-ordered copy is exact.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1
python3 -m venv venv
venv/bin/pip install -q safetensors==0.8.0 numpy==2.4.6
venv/bin/python - <<'PY'
import numpy as np
from safetensors.numpy import load, save

vt = np.array([[0, 3], [1, 4], [2, 5]], dtype=np.float32)
factors = vt.T
got = load(save({"item": factors}))["item"]
copy = load(save({"item": np.ascontiguousarray(factors)}))["item"]
print("saved ", factors.tolist())
print("loaded", got.tolist())
print("copy  ", copy.tolist())
assert got.tolist() == [[0, 3, 1], [4, 2, 5]]
assert copy.tolist() == factors.tolist()
PY

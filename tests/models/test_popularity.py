"""The popularity baseline keeps the contract."""

from __future__ import annotations

from ensue.models.popularity import PopularityConfig
from ensue.testing import ModelContract


class TestPopularity(ModelContract):
    config = PopularityConfig(maxlen=16)
    reads_order = False

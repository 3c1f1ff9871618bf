#!/usr/bin/env python3
"""Writes a reference of a multi-label stratified split: split.json.

1500 samples have the class frequencies of the Human Protein Atlas (crates/common/src/labels.rs). Each class is
drawn independently, with at least one class per sample. `MultilabelStratifiedKFold` of
iterative-stratification, which implements Sechidis, Tsoumakas and Vlahavas 2011, makes five folds.
Random ties decide the fold of a sample, so the file contains only values that do not depend on
them: `spread`, the largest difference between folds in the number of samples of each class, and the
`sizes` of the folds. Both are the worst of ten seeds.

    pip install iterative-stratification numpy && python split.py
"""

import importlib.metadata
import json
import pathlib
import platform

import numpy
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

SEED = 2011
SAMPLES, FOLDS, SEEDS = 1500, 5, 10
TOTAL = 31072
COUNTS = [
    12885, 1254, 3621, 1561, 1858, 2513, 1008, 2822, 53, 45, 28, 1093, 688, 537, 1066, 21, 530,
    210, 902, 1482, 172, 3777, 802, 2965, 322, 8228, 328, 11,
]  # fmt: skip
HERE = pathlib.Path(__file__).resolve().parent


def main():
    """Writes the golden file."""
    rng = numpy.random.default_rng(SEED)
    shares = numpy.array(COUNTS) / TOTAL
    labels = (rng.uniform(size=(SAMPLES, len(COUNTS))) < shares).astype(int)
    labels[labels.sum(axis=1) == 0, 0] = 1

    spread = numpy.zeros(len(COUNTS), int)
    sizes = [SAMPLES // FOLDS] * FOLDS
    for seed in range(SEEDS):
        splitter = MultilabelStratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        folds = [valid for _, valid in splitter.split(labels, labels)]
        counts = numpy.array([labels[fold].sum(axis=0) for fold in folds])
        spread = numpy.maximum(spread, counts.max(axis=0) - counts.min(axis=0))
        found = [len(fold) for fold in folds]
        sizes = max(sizes, found, key=lambda sizes: max(sizes) - min(sizes))

    fields = {
        "generator": "tests/golden/split.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "iterative-stratification": importlib.metadata.version("iterative-stratification"),
        },
        "seed": SEED,
        "spread": spread.tolist(),
        "sizes": sizes,
        "targets": [numpy.flatnonzero(row).tolist() for row in labels],
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
    (HERE / "split.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

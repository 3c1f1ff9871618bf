"""Writes intervals.json: intervals of F1 from SciPy's Wilson interval and bootstrap.

Run it in this folder: `python intervals.py > intervals.json` (takes seconds). Needs numpy,
scikit-learn and SciPy.
"""

import json
import platform
import sys
import warnings

import numpy as np
import scipy
import sklearn
from scipy.stats import binomtest, bootstrap, norm
from sklearn.metrics import f1_score

SEED = 1987
DRAWS = 10_000


def wilson():
    """Yields intervals of F1 = 2J / (1 + J) from Wilson's interval of the Jaccard index J."""
    for tp, fp, fn in [(0, 0, 1), (1, 0, 0), (0, 5, 7), (9, 2, 3), (40, 60, 10), (5000, 700, 900)]:
        ci = binomtest(tp, tp + fp + fn).proportion_ci(0.95, method="wilson")
        yield {"counts": [tp, fp, fn], "interval": [2 * ci.low / (1 + ci.low), 2 * ci.high / (1 + ci.high)]}


def f1(counts, average):
    """Returns F1 from [tp, fp, fn] of each class; faster than scikit-learn's, see `main`."""
    if average == "micro":
        counts = counts.sum(axis=-2, keepdims=True)
    tp, wrong = counts[..., 0], counts[..., 1] + counts[..., 2]
    return (2 * tp / np.maximum(2 * tp + wrong, 1)).mean(axis=-1)


def outcomes(y, z):
    return np.stack([y & z, ~y & z, y & ~z], axis=-1).astype(np.int32)


def normal(statistic, n, rng):
    """Returns the observed value minus the bias of the bootstrap, ± 1.96 standard errors."""
    indices = np.arange(n)

    result = bootstrap(
        (indices,), statistic, n_resamples=DRAWS, method="percentile", vectorized=False, rng=rng
    )
    observed = statistic(indices)
    middle = 2 * observed - result.bootstrap_distribution.mean()
    half = norm.ppf(0.975) * result.standard_error
    return [middle - half, middle + half]


def main():
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(SEED)
    n, k = 150, 4
    y = rng.random((n, k)) < [0.5, 0.2, 0.1, 0.05]
    a = np.where(rng.random((n, k)) < 0.15, ~y, y)
    b = np.where(rng.random((n, k)) < 0.08, ~y, y)
    assert np.isclose(f1(outcomes(y, a).sum(0), "macro"), f1_score(y, a, average="macro"))
    assert np.isclose(f1(outcomes(y, a).sum(0), "micro"), f1_score(y, a, average="micro"))
    oa, ob = outcomes(y, a), outcomes(y, b)
    document = {
        "generator": "tests/golden/intervals.py",
        "seed": SEED,
        "draws": DRAWS,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "wilson": list(wilson()),
        "classes": k,
        "targets": y.astype(int).ravel().tolist(),
        "a": a.astype(int).ravel().tolist(),
        "b": b.astype(int).ravel().tolist(),
        "bootstrap": {
            average: {
                "a": normal(lambda i: f1(oa[i].sum(0), average), n, rng),
                "difference": normal(lambda i: f1(ob[i].sum(0), average) - f1(oa[i].sum(0), average), n, rng),
            }
            for average in ["macro", "micro"]
        },
    }
    json.dump(document, sys.stdout, indent=None, separators=(",", ":"))
    print()


main()

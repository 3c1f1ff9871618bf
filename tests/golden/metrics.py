"""Writes metrics.json: multi-label metrics computed by scikit-learn and PyTorch.

Run it in this folder: `python metrics.py > metrics.json`. Needs numpy, scikit-learn and torch.
"""

import json
import platform
import sys
import warnings

import numpy as np
import sklearn
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

SEED = 20181010
BINS = 15
RARE_SHARE = 0.005


def calibration_error(p, y):
    """Returns the expected calibration error (Guo et al. 2017) from scikit-learn's bins."""
    p = p.astype(np.float64)
    true, predicted = calibration_curve(y, p, n_bins=BINS)
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], p), minlength=BINS)
    counts = counts[counts > 0]
    return float((counts * np.abs(true - predicted)).sum() / counts.sum())


def evaluate(p, y, thresholds):
    """Returns the fields of `Evaluation`; p float32, y 0/1, both [samples, classes]."""
    n, k = p.shape
    predicted = (p >= thresholds).astype(int)
    y = y.astype(int)
    precision, recall, f1, _ = precision_recall_fscore_support(y, predicted, average=None, zero_division=0)
    classes = []
    for c in range(k):
        tn, fp, fn, tp = confusion_matrix(y[:, c], predicted[:, c], labels=[0, 1]).ravel()
        has_positives = y[:, c].any()
        classes.append({
            "threshold": float(thresholds[c]),
            "true_positives": int(tp),
            "false_positives": int(fp),
            "false_negatives": int(fn),
            "true_negatives": int(tn),
            "precision": precision[c],
            "recall": recall[c],
            "f1": f1[c],
            "average_precision": average_precision_score(y[:, c], p[:, c].astype(np.float64)) if has_positives else None,
            "auroc": roc_auc_score(y[:, c], p[:, c].astype(np.float64)) if 0 < y[:, c].sum() < n else None,
            "calibration_error": calibration_error(p[:, c], y[:, c]),
        })
    present = y.any(axis=0)
    rare = [c for c in range(k) if 0 < y[:, c].sum() < RARE_SHARE * n]
    aurocs = [c["auroc"] for c in classes if c["auroc"] is not None]
    average_precisions = [c["average_precision"] for c in classes if c["average_precision"] is not None]
    prevalence = y.mean(axis=0)
    loss = torch.nn.functional.binary_cross_entropy(
        torch.tensor(p.astype(np.float64)), torch.tensor(y.astype(np.float64))
    )
    return {
        "samples": n,
        "loss": loss.item(),
        "macro_f1": f1_score(y, predicted, average="macro", zero_division=0),
        "f1_std": float(np.std(f1)),
        "f1_min": f1.min(),
        "f1_max": f1.max(),
        "micro_f1": f1_score(y, predicted, average="micro", zero_division=0),
        "macro_f1_present": f1[present].mean() if present.any() else 0.0,
        "hamming_loss": hamming_loss(y, predicted),
        "mean_auroc": float(np.mean(aurocs)) if aurocs else None,
        "calibration_error": calibration_error(p.ravel(), y.ravel()),
        "mean_calibration_error": float(np.mean([c["calibration_error"] for c in classes])),
        "rare": {"classes": len(rare), "found": sum(classes[c]["true_positives"] > 0 for c in rare)},
        "mean_average_precision": float(np.mean(average_precisions)) if average_precisions else None,
        "chance": {
            # 2pq / (p + q) with q = 1 and with q = p
            "all_positive": float(np.mean(2 * prevalence / (prevalence + 1))),
            "class_frequency": float(np.mean(prevalence)),
        },
        "classes": classes,
    }


def tune(p, y):
    """Returns the threshold with the best F1 for each class.

    Tries every distinct probability, and returns the midpoint to the next lower one.
    """
    tuned = []
    for c in range(p.shape[1]):
        best, threshold = 0.0, np.float32(0.5)
        if y[:, c].any():
            values = np.unique(p[:, c])[::-1]
            for i, value in enumerate(values):
                f1 = f1_score(y[:, c].astype(int), (p[:, c] >= value).astype(int), zero_division=0)
                if f1 > best:
                    below = values[i + 1] if i + 1 < len(values) else np.float32(0)
                    best, threshold = f1, np.float32((np.float64(value) + np.float64(below)) / 2)
        tuned.append(threshold)
    return np.array(tuned, dtype=np.float32)


def case(name, p, y, thresholds):
    p = np.asarray(p, dtype=np.float32)
    y = np.asarray(y, dtype=np.float32)
    thresholds = np.asarray(thresholds, dtype=np.float32)
    tuned = tune(p, y)
    return {
        "name": name,
        "classes": p.shape[1],
        "probabilities": [float(x) for x in p.ravel()],
        "targets": [int(x) for x in y.ravel()],
        "thresholds": [float(x) for x in thresholds],
        "tuned_thresholds": [float(x) for x in tuned],
        "evaluation": evaluate(p, y, thresholds),
        "tuned": evaluate(p, y, tuned),
    }


def cases():
    rng = np.random.default_rng(SEED)
    n, k = 60, 6
    prevalence = np.array([0.4, 0.15, 0.05, 0.3, 0.5, 0.2])
    y = rng.random((n, k)) < prevalence
    p = 1 / (1 + np.exp(-rng.normal(1.5 * y - 1, 1.2, (n, k))))
    yield case("random", p, y, [0.5] * k)
    yield case("per-class thresholds", p, y, rng.random(k))
    # Ties: probabilities on a grid of five values, thresholds exactly on the grid.
    yield case("ties", np.round(p * 4) / 4, y, [0.0, 0.25, 0.5, 0.75, 1.0, 0.5])
    y2, p2 = y.copy(), p.copy()
    y2[:, 0] = False  # no positives
    y2[:, 1] = True  # only positives
    p2[:, 2] = 0.9  # all predicted, one tie
    p2[:, 3] = 0.1  # none predicted
    p2[:, 4] = y2[:, 4]  # perfect, saturated
    p2[:, 5] = ~y2[:, 5]  # wrong, saturated
    yield case("degenerate classes", p2, y2, [0.5] * k)
    yield case("nothing there", p[:5], np.zeros((5, k)), [0.5] * k)
    # All classes predicted, none predicted, and probabilities on the edges of calibration bins.
    yield case("all predicted", p, y, [0.0] * k)
    yield case("none predicted", p, y, [1.0] * k)
    yield case("edges of bins", np.round(p * 15) / 15, y, [0.5] * k)
    # Two rare classes, one of which is found.
    n3 = 450
    y3 = rng.random((n3, 3)) < [0.3, 0, 0]
    p3 = np.round(rng.random((n3, 3)), 3) * 0.4
    y3[7, 1] = y3[[9, 11], 2] = True
    p3[7, 1] = 0.8
    yield case("rare classes", p3, y3, [0.3, 0.5, 0.5])
    yield case("one sample", [[0.7, 0.2]], [[1, 0]], [0.5, 0.5])


def main():
    warnings.simplefilter("ignore")
    document = {
        "generator": "tests/golden/metrics.py",
        "seed": SEED,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
        "cases": list(cases()),
    }
    json.dump(document, sys.stdout, indent=None, separators=(",", ":"))
    print()


main()

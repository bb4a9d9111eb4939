"""Random forests and support vector machines on tables: scikit-learn's, as learners of the track `classify`.

They see the training part once and know no passes, so they end long before a net's budget does. scikit-learn is imported when
a trial needs it: beside pandas it starts a thread, with which no server could fork; what of SciPy it needs is here before.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.stats  # noqa: F401  (half of what importing scikit-learn takes, once for all trials)
import torch
from torch import Tensor

from harness.lab import Classify

LEAST = 1e-12  # of a probability: a class that no tree voted for has a logit all the same


class Voted:
    """A solution of `classify` around a fitted classifier of scikit-learn."""

    def __init__(self, fitted: Any, classes: int, dtype: torch.dtype) -> None:
        self.fitted, self.classes, self.dtype = fitted, classes, dtype

    def predict(self, x: Tensor) -> Tensor:
        """(N, classes): a forest's log-probabilities, a machine's one-against-rest values; least for classes it never saw."""
        found = self.values(rows_of(x))
        logits = np.full((len(found), self.classes), min(found.min(initial=0.0), np.log(LEAST)))
        logits[:, self.fitted.classes_] = found
        return torch.from_numpy(logits).to(x.device, self.dtype)

    def values(self, x: np.ndarray) -> np.ndarray:
        if hasattr(self.fitted, "predict_proba"):
            return np.log(self.fitted.predict_proba(x) + LEAST)
        found = self.fitted.decision_function(x)
        return found if found.ndim == 2 else np.stack([-found / 2, found / 2], axis=1)


def rows_of(x: Tensor) -> np.ndarray:
    """(N, F) float64; an image is a row of its pixels."""
    return x.detach().flatten(1).cpu().double().numpy()


def solve_forest(problem: Classify, ctx: Any, params: Any) -> Voted:
    """Breiman's random forest. max_features: share of the features that a split may choose among, one at least."""
    from sklearn.ensemble import RandomForestClassifier

    seed = ctx.stream_seed("forest") % 2**32
    model = RandomForestClassifier(
        params.trees, max_features=params.max_features, min_samples_leaf=params.min_leaf, random_state=seed, n_jobs=1
    )
    return fitted(model, problem, ctx)


def solve_svm(problem: Classify, ctx: Any, params: Any) -> Voted:
    """A machine with a Gaussian kernel exp(-gamma |x - y|^2 / features); one that stops early says so in its diagnostics."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    features = problem.shape["inputs"]
    # random_state: nothing is drawn, yet without one scikit-learn asks NumPy's global generator.
    model = SVC(C=params.penalty, gamma=params.gamma / features, max_iter=params.iterations, cache_size=500, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = fitted(model, problem, ctx)
    ctx.log(stopped_early=float(model.fit_status_ != 0 or np.max(model.n_iter_) >= params.iterations))
    return solution


def fitted(model: Any, problem: Classify, ctx: Any) -> Voted:
    items = len(problem.x)
    ctx.spend(samples_seen=items, steps=1)
    with ctx.region("train_step"):
        model.fit(rows_of(problem.x), problem.y.cpu().numpy())
    solution = Voted(model, problem.classes, problem.x.dtype)
    ctx.offer(solution)
    return solution

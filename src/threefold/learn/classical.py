"""Classical baselines: a logistic regression or a support vector machine per attribute on a frozen backbone's features.

scikit-learn fits them once per fold; the fitted numbers are copied into tensors, so that such a network is saved,
loaded, averaged, predicted with and exported like any other, and nothing is ever unpickled. They are heads whose `fit`
replaces the training loop; everything before (folds, Prepare) and after (Predictions) is the same.
"""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threefold.labels import SIZES
from threefold.learn.ages import Outputs
from threefold.learn.heads import Head, Multi
from threefold.learn.target import SoftTarget, Target
from threefold.spec import need

Features = NDArray[np.float32]
Values = NDArray[np.float64]
Codes = NDArray[np.int64]


class Machine(nn.Module):
    """Features [B, F] -> logits [B, K] as scikit-learn's estimator gave them: standardise, kernel, calibrate.

    support [S, F] and dual [S, K] are the kernel expansion; with a linear kernel the single row of `support` is unused
    and `dual` is [F, K]. Decision values d become logits `d @ calibrate + shift`.
    """

    mean: Tensor
    scale: Tensor
    gamma: Tensor
    support: Tensor
    dual: Tensor
    bias: Tensor
    calibrate: Tensor
    shift: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.fill(mean=np.zeros(1), scale=np.ones(1), gamma=0.0, support=np.zeros((1, 1)))
        self.fill(dual=np.zeros((features, classes)), bias=np.zeros(classes))
        self.fill(calibrate=np.zeros((classes, classes)), shift=np.zeros(classes))

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, K]."""
        z = (features - self.mean) / self.scale
        if self.gamma > 0:
            z = torch.exp(-self.gamma * torch.cdist(z, self.support).square())
        return (z @ self.dual + self.bias) @ self.calibrate + self.shift

    def fill(self, **values: Any) -> None:
        """Replace buffers by arrays, whatever their sizes."""
        for name, value in values.items():
            self.register_buffer(name, torch.as_tensor(np.asarray(value), dtype=torch.float32))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.fill(**{k: state_dict[prefix + k] for k, _ in self.named_buffers() if prefix + k in state_dict})
        super()._load_from_state_dict(state_dict, prefix, *args)


class Classical(Head):
    """Three `Machine`s 3 + 2 + 3; the joint is their product, as in `multi`. Not trained by gradients: see `fit`."""

    kinds = dict.fromkeys(("mask", "gender", "age"), "classes")

    def __init__(self, features: int, C: float, kernel: str, *, probabilities: bool) -> None:
        super().__init__()
        need(C > 0, "model.head: C", C, "a number above 0 (smaller: more regularised)")
        self.C, self.kernel, self.probabilities = C, kernel, probabilities
        self.mask, self.gender, self.age = (Machine(features, size) for size in SIZES.values())
        self.multi = Multi(1)  # its targets and its joint, not its layers
        self.multi.requires_grad_(False)

    def outputs(self, features: Tensor) -> Outputs:
        """Logits mask [B, 3], gender [B, 2], age [B, 3]."""
        return {"mask": self.mask(features), "gender": self.gender(features), "age": self.age(features)}

    def targets(self, target: Target) -> dict[str, SoftTarget]:
        """As `multi`."""
        return self.multi.targets(target)

    def joint(self, outputs: Outputs) -> Tensor:
        """As `multi`, [B, 18]."""
        return self.multi.joint(outputs)

    def fit(self, features: Features, target: Target, persons: NDArray[np.str_], seed: int) -> None:
        """Fit the three machines on [N, F] features of known photos; calibration never mixes a person's photos."""
        for machine, mass in ((self.mask, target.mask), (self.gender, target.gender), (self.age, target.age_group)):
            labelled = np.flatnonzero((mass.sum(1) > 0.5).numpy())
            codes, classes = mass.argmax(1).numpy()[labelled], mass.shape[1]
            mean, spread = features[labelled].mean(0), np.maximum(features[labelled].std(0), 1e-6)
            values = ((features[labelled] - mean) / spread).astype(np.float64)
            machine.fill(mean=mean, scale=spread, shift=np.zeros(classes), calibrate=np.eye(classes))
            if self.probabilities:
                machine.fill(**_regression(values, codes, classes, self.C))
            else:
                machine.fill(**self._vectors(values, codes, persons[labelled], classes))

    def _vectors(self, values: Values, codes: Codes, persons: NDArray[np.str_], classes: int) -> dict[str, Any]:
        """One against the rest; a softmax of the decision values, as sharp as people left out of the fit bear out."""
        from sklearn.model_selection import GroupKFold

        whole = _one_against_rest(values, codes, classes, self.C, self.kernel)
        held_out = np.zeros((len(codes), classes))
        if len(set(persons.tolist())) >= 3:  # as many as folds
            for train, valid in GroupKFold(3).split(values, codes, persons):
                part = _one_against_rest(values[train], codes[train], classes, self.C, self.kernel)
                rows = values[valid]
                if self.kernel == "rbf":
                    support = part["support"]
                    apart = (rows**2).sum(1)[:, None] + (support**2).sum(1) - 2 * rows @ support.T
                    rows = np.exp(-part["gamma"] * np.maximum(apart, 0))
                held_out[valid] = rows @ part["dual"] + part["bias"]
        absent = np.where(np.isin(np.arange(classes), codes), 0.0, -30.0)
        return {**whole, "calibrate": np.eye(classes) * _sharpness(held_out, codes), "shift": absent}


def logistic(features: int, *, C: float = 1.0) -> Classical:  # scikit-learn's name
    """Multinomial logistic regression on standardised features; C as in scikit-learn."""
    return Classical(features, C, "linear", probabilities=True)


def svm(features: int, *, C: float = 1.0, kernel: Literal["rbf", "linear"] = "rbf") -> Classical:
    """Support vector machines, one class against the rest (Cortes & Vapnik, 1995), calibrated by one temperature."""
    return Classical(features, C, kernel, probabilities=False)


def _regression(values: Values, codes: Codes, classes: int, c: float) -> dict[str, Any]:
    """Logistic regression as dual [F, K] and bias [K]; classes without a photo get no chance."""
    from sklearn.linear_model import LogisticRegression

    dual, bias = np.zeros((values.shape[1], classes)), np.full(classes, -30.0)
    present = np.unique(codes)
    bias[present] = 0.0
    if len(present) > 1:
        model = LogisticRegression(C=c, max_iter=2000).fit(values, codes)
        columns = present[-1:] if len(model.coef_) == 1 else present  # of two classes, one row: the second's
        dual[:, columns], bias[columns] = model.coef_.T, model.intercept_
    return {"gamma": 0.0, "support": np.zeros((1, 1)), "dual": dual, "bias": bias}


def _one_against_rest(values: Values, codes: Codes, classes: int, c: float, kernel: str) -> dict[str, Any]:
    from sklearn.svm import SVC

    gamma = 1.0 / values.shape[1] if kernel == "rbf" else 0.0  # scikit-learn's `scale` for features of variance 1
    weights, bias = np.zeros((len(values), classes)), np.full(classes, -1.0)
    present = np.unique(codes)
    if len(present) > 1:
        for code in present:
            model = SVC(C=c, kernel=kernel, gamma=gamma or "scale").fit(values, codes == code)
            weights[model.support_, code] = model.dual_coef_[0]
            bias[code] = model.intercept_[0]
    if kernel == "linear":
        return {"gamma": 0.0, "support": np.zeros((1, 1)), "dual": values.T @ weights, "bias": bias}
    support = np.flatnonzero(weights.any(1)) if weights.any() else np.arange(len(values))
    return {"gamma": gamma, "support": values[support], "dual": weights[support], "bias": bias}


def _sharpness(decisions: Values, codes: Codes) -> float:
    """The factor that makes the held-out likelihood largest (temperature scaling, Guo et al., 2017).

    One number, always above 0: with few people a full logistic fit of the decision values can turn them round.
    """

    def cost(factor: float) -> float:
        z = decisions * factor
        top = z.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(z - top).sum(1)) + top[:, 0] - z[np.arange(len(z)), codes]))

    return float(min(np.logspace(-1, 1.5, 40), key=cost))


CLASSICAL = {"logistic": logistic, "svm": svm}

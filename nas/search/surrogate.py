"""A Gaussian process on choices and cheap features, and the expected gain of hypervolume with latency known.

Latency costs nothing to predict, so only the metric needs a model. Expected hypervolume improvement (Emmerich et al.
2006) then has a closed form: a sum over the steps of the front, each the width right of the candidate's own latency
times a one-dimensional expected improvement. Multi-objective samplers that learn both objectives from trials have to
find out what we can tell them.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr

from nas.search.pareto import front_order

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class GaussianProcess:
    """A fitted process: exponential kernel on the share of equal choices plus squared-exponential on features.

    Every choice has its own weight and every feature its own length; weights, lengths and noise are fitted by maximum
    a posteriori. Use `fit`.
    """

    one_hot: torch.Tensor
    features: torch.Tensor
    groups: torch.Tensor
    center: Floats
    scale: Floats
    mean: float
    deviation: float
    parameters: dict[str, torch.Tensor]
    factor: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def fit(
        cls,
        one_hot: Floats,
        groups: npt.NDArray[np.int64],
        features: Floats,
        target: Floats,
        *,
        steps: int = 40,
    ) -> Self:
        """Fit to `n` observations.

        Args:
            one_hot: `n x columns` encoded choices.
            groups: `columns` numbers of the choice each column belongs to.
            features: `n x k` cheap features.
            target: `n` values.
            steps: Of Adam on the log posterior.
        """
        center, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
        mean, deviation = float(target.mean()), float(target.std() + 1e-9)
        x = torch.from_numpy(one_hot)
        f = torch.from_numpy((features - center) / scale)
        y = torch.from_numpy((target - mean) / deviation)
        group = torch.from_numpy(groups)
        parameters = _start(int(groups.max()) + 1, features.shape[1])
        with torch.enable_grad():
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            optimizer = torch.optim.Adam(parameters.values(), lr=0.1)
            for _ in range(steps):
                optimizer.zero_grad()
                _negative_log_posterior(parameters, x, f, y, group).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        fitted = {name: parameter.detach() for name, parameter in parameters.items()}
        factor, weights = _solve(fitted, x, f, y, group)
        return cls(x, f, group, center, scale, mean, deviation, fitted, factor, weights)

    def predict(self, one_hot: Floats, features: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the noise-free value, each of shape `(m,)`."""
        x = torch.from_numpy(one_hot)
        f = torch.from_numpy((features - self.center) / self.scale)
        cross = _kernel(self.parameters, x, self.one_hot, f, self.features, self.groups)
        mean = cross @ self.weights
        reduced = torch.linalg.solve_triangular(self.factor, cross.T, upper=False)
        prior = self.parameters["choice_scale"].exp() + self.parameters["feature_scale"].exp()
        variance = (prior - (reduced**2).sum(0)).clamp_min(1e-8)
        return mean.numpy() * self.deviation + self.mean, variance.sqrt().numpy() * self.deviation


def _start(choices: int, features: int) -> dict[str, torch.Tensor]:
    def full(size: int, value: float) -> torch.Tensor:
        return torch.full((size,), value, dtype=torch.float64)

    return {
        "choice": full(choices, float(np.log(2.0 / choices))),
        "choice_scale": full(1, 0.0),
        "feature": full(features, -1.0),
        "feature_scale": full(1, 0.0),
        "noise": full(1, -4.0),
    }


def _kernel(
    parameters: dict[str, torch.Tensor],
    a: torch.Tensor,
    b: torch.Tensor,
    features_a: torch.Tensor,
    features_b: torch.Tensor,
    groups: torch.Tensor,
) -> torch.Tensor:
    weight = parameters["choice"].exp()
    root = weight.sqrt()[groups]
    differing = weight.sum() - (a * root) @ (b * root).T
    choice = parameters["choice_scale"].exp() * torch.exp(-differing)
    scaled_a, scaled_b = (part * parameters["feature"].exp() for part in (features_a, features_b))
    distance = (scaled_a**2).sum(1)[:, None] + (scaled_b**2).sum(1) - 2 * scaled_a @ scaled_b.T
    return choice + parameters["feature_scale"].exp() * torch.exp(-0.5 * distance.clamp_min(0.0))


def _solve(
    parameters: dict[str, torch.Tensor],
    x: torch.Tensor,
    f: torch.Tensor,
    y: torch.Tensor,
    groups: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    noise = parameters["noise"].exp() + 1e-5
    covariance = _kernel(parameters, x, x, f, f, groups) + noise * torch.eye(len(y), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance)
    return factor, torch.cholesky_solve(y[:, None], factor)[:, 0]


def _negative_log_posterior(
    parameters: dict[str, torch.Tensor],
    x: torch.Tensor,
    f: torch.Tensor,
    y: torch.Tensor,
    groups: torch.Tensor,
) -> torch.Tensor:
    factor, weights = _solve(parameters, x, f, y, groups)
    loss = 0.5 * (y @ weights) + torch.diagonal(factor).log().sum()
    # Priors: few choices matter, features vary slowly, both parts of unit size, noise of about a seventh.
    loss = loss + 0.05 * ((parameters["choice"] + 3) ** 2).sum() + 0.5 * ((parameters["feature"] + 1) ** 2).sum()
    loss = loss + 0.5 * (parameters["choice_scale"] ** 2 + parameters["feature_scale"] ** 2).sum()
    return loss + 0.1 * ((parameters["noise"] + 4) ** 2).sum()


def expected_gain(
    mean: Floats,
    deviation: Floats,
    latency: Floats,
    front: tuple[Floats, Floats],
    reference: tuple[float, float],
) -> Floats:
    """Return the expected gain of hypervolume of `m` candidates with known latency.

    Args:
        mean: Of the metric.
        deviation: Of the metric.
        latency: Known.
        front: Metric and latency of the points found, in any order.
        reference: Least metric and greatest latency that count.
    """
    floor, ceiling = reference
    useful = (front[0] > floor) & (front[1] < ceiling)
    metric, cost = front[0][useful], front[1][useful]
    order = front_order(metric, cost)
    levels = np.concatenate([[floor], metric[order]])
    starts = np.concatenate([[-np.inf], cost[order]])
    ends = np.concatenate([cost[order], [ceiling]])
    width = np.clip(ends[None] - np.maximum(starts[None], latency[:, None]), 0.0, None)
    z = (mean[:, None] - levels[None]) / deviation[:, None]
    improvement = deviation[:, None] * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))
    gain: Floats = (width * improvement).sum(axis=1)
    return gain

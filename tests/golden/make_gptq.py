#!/usr/bin/env python3
"""Makes tests/data/gptq.safetensors: a matrix rounded by GPTQ as its paper has it (Frantar et al. 2022, algorithm 1), in f64.

`x` [40, 64] are correlated inputs, fewer than columns and one of them always zero; `weight` [6, 64]. `numbers` and `scales`: 8 bits, one scale a
row, columns of large inputs first. `errors` [2]: |x (w - q)^T|^2 with every number rounded to its nearest, and so. `feedback` [64, 64]: of the
columns in groups of 32, groups of large inputs first and such columns first in each, what column j takes on in the end of w - q at column k, both
in that order. --check: tells whether the committed file is what this makes. Needs numpy 2 and safetensors.
"""
import os
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/gptq.safetensors")
DAMPING = 0.01


def inverse_factor(h, order):
    """Upper Cholesky factor of the inverse of damped h, its rows and columns in this order."""
    h = h[np.ix_(order, order)] + DAMPING * np.mean(np.diag(h)) * np.eye(len(h))
    return np.linalg.cholesky(np.linalg.inv(h)).T


def rounded(w, scale):
    return np.clip(np.rint(w / scale), -127, 127)


def gptq(w, h, scale, order):
    u = inverse_factor(h, order)
    w = w[:, order].copy()
    q = np.empty_like(w)
    for j in range(w.shape[1]):
        q[:, j] = rounded(w[:, j], scale)
        error = (w[:, j] - q[:, j] * scale) / u[j, j]
        w[:, j:] -= np.outer(error, u[j, j:])
    out = np.empty_like(q)
    out[:, order] = q
    return out


def main():
    r = np.random.default_rng(7)
    x = (r.standard_normal((40, 24)) @ r.standard_normal((24, 64)) * r.uniform(0.1, 3, 64)).astype(np.float32)
    x[:, 5] = 0
    weight = r.standard_normal((6, 64)).astype(np.float32)
    h = x.T.astype(np.float64) @ x.astype(np.float64)
    squares = np.diag(h)

    w = weight.astype(np.float64)
    scales = np.abs(weight).max(1) / np.float32(127)
    scale = scales.astype(np.float64)
    numbers = gptq(w, h, scale, np.argsort(-squares, kind="stable"))
    errors = [float(np.sum((x @ (w - n * scale[:, None]).T) ** 2)) for n in (rounded(w, scale[:, None]), numbers)]

    groups = np.argsort(-squares.reshape(2, 32).sum(1), kind="stable")
    order = np.concatenate([32 * g + np.argsort(-squares[32 * g:32 * g + 32], kind="stable") for g in groups])
    u = inverse_factor(h, order)
    updates = -np.tril((u / np.diag(u)[:, None]).T, -1)  # [j, k]: of what column k was to be when it came to it, less q
    feedback = np.linalg.inv(np.eye(64) - updates)
    data = {"x": x, "weight": weight, "numbers": numbers.astype(np.int8), "scales": scales[:, None].astype(np.float32),
            "errors": np.array(errors, np.float32), "feedback": np.tril(feedback, -1).astype(np.float32)}
    if "--check" in sys.argv:
        old = load_file(OUT)
        sys.exit(not (old.keys() == data.keys() and all(np.allclose(old[k], data[k], rtol=1e-5, atol=1e-6) for k in old)))
    save_file(data, OUT)
    print(errors)


if __name__ == "__main__":
    main()

"""How exporters write activations: from x to y, with the constants below.

The tables are keyed by the operator that computes the same ("" where there is none) and the name.
"""

from __future__ import annotations

import numpy as np

Table = dict[tuple[str, str], dict[str, str]]

CONSTANTS = {
    "zero": 0.0, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "half": 0.5, "quarter": 0.25,
    "sixth": 1 / 6, "root2": 2**0.5, "inverse_root2": 0.5**0.5, "minus_one": -1.0,
    "tenth": 0.1, "minus_tenth": -0.1, "quick": 1.702, "beta": 1.5, "twenty": 20.0,
    "cubic": 0.044715, "root_2_pi": (2 / np.pi) ** 0.5, "alpha": 1.6732632, "gamma": 1.050701,
}  # fmt: skip
ARRAYS = {
    "zeros": np.zeros((1, 6), np.float32),
    "slopes": np.array([0.1, 0.2, 0.3, -0.1, 0.5, 0.6], np.float32),
    "minus_slopes": -np.array([0.1, 0.2, 0.3, -0.1, 0.5, 0.6], np.float32),
}
RELUS: Table = {
    ("Relu(x)", "ReLU"): {
        "torch: clamp(min=0)": "y = Max(x, zero)",
        "tensorflow: maximum(0, x)": "y = Max(zero, x)",
        "torch: maximum(x, zeros_like(x))": "y = Max(x, zeros)",
        "torch: where(x > 0, x, 0)": "g = Greater(x, zero) y = Where(g, x, zero)",
        "torch: threshold": "g = LessOrEqual(x, zero) y = Where(g, zero, x)",
        "torch: x * (x > 0)": "g = Greater(x, zero) f = Cast<to=1>(g) y = Mul(x, f)",
        "(x + |x|) / 2": "a = Abs(x) s = Add(x, a) y = Mul(s, half)",
        "tf2onnx: where": (
            "g = Greater(x, zero) n = Not(g) a = Cast<to=1>(n) b = Mul(zero, a)"
            " c = Cast<to=1>(g) d = Mul(c, x) y = Add(d, b)"
        ),
    },
    ("Clip(x, zero, six)", "ReLU6"): {
        "Max, Min": "a = Max(x, zero) y = Min(a, six)",
        "Min, Max": "a = Min(six, x) y = Max(a, zero)",
        "Relu, Min": "a = Relu(x) y = Min(a, six)",
        "Min, Relu": "a = Min(x, six) y = Relu(a)",
    },
}
SMOOTH: Table = {
    ("", "SiLU"): {
        "torch": "s = Sigmoid(x) y = Mul(x, s)",
        "the other way round": "s = Sigmoid(x) y = Mul(s, x)",
        "tf2onnx: beta of 1": "b = Mul(one, x) s = Sigmoid(b) y = Mul(x, s)",
        "x / (1 + exp(-x))": "n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(x, a)",
        "x * 1 / (1 + exp(-x))": (
            "n = Mul(x, minus_one) e = Exp(n) a = Add(one, e) r = Reciprocal(a) y = Mul(r, x)"
        ),
    },
    ("", "Swish"): {"beta of 1.5": "b = Mul(x, beta) s = Sigmoid(b) y = Mul(x, s)"},
    ("", "QuickGELU"): {"torch": "b = Mul(x, quick) s = Sigmoid(b) y = Mul(x, s)"},
    ("Gelu(x)", "GELU"): {
        "torch": "d = Div(x, root2) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
        "timm: half of x first": (
            "h = Mul(x, half) d = Div(x, root2) e = Erf(d) a = Add(one, e) y = Mul(h, a)"
        ),
        "jax": (
            "d = Mul(x, inverse_root2) e = Erf(d) a = Add(e, one) m = Mul(half, a) y = Mul(x, m)"
        ),
        "half of the sum": (
            "d = Mul(inverse_root2, x) e = Erf(d) m = Mul(e, half) a = Add(m, half) y = Mul(a, x)"
        ),
        "division by 2": (
            "d = Div(x, root2) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Div(m, two)"
        ),
    },
    ('Gelu<approximate="tanh">(x)', "GELU"): {
        "torch, x * x * x": (
            "q = Mul(x, x) c = Mul(x, q) k = Mul(cubic, c) a = Add(x, k) u = Mul(root_2_pi, a)"
            " t = Tanh(u) b = Add(one, t) m = Mul(x, b) y = Mul(half, m)"
        ),
        "keras, pow 3": (
            "h = Mul(half, x) c = Pow(x, three) k = Mul(cubic, c) a = Add(x, k)"
            " u = Mul(root_2_pi, a) t = Tanh(u) b = Add(one, t) y = Mul(h, b)"
        ),
        "jax, cdf": (
            "c = Pow(x, three) k = Mul(cubic, c) a = Add(x, k) u = Mul(root_2_pi, a)"
            " t = Tanh(u) b = Add(t, one) m = Mul(b, half) y = Mul(x, m)"
        ),
    },
    ("HardSigmoid<alpha=0.16666667>(x)", "HardSigmoid"): {
        "torch: relu6(x + 3) / 6": "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)",
        "keras": "a = Add(x, three) c = Clip(a, zero, six) y = Mul(c, sixth)",
        "Max, Min": "a = Add(three, x) b = Max(a, zero) c = Min(b, six) y = Div(c, six)",
        "clamp(x / 6 + 1/2, 0, 1)": "d = Mul(x, sixth) a = Add(d, half) y = Clip(a, zero, one)",
    },
    ("HardSwish(x)", "HardSwish"): {
        "torch: x * relu6(x + 3) / 6": (
            "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"
        ),
        "keras": "a = Add(x, three) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(x, d)",
        "HardSigmoid": "h = HardSigmoid<alpha=0.16666667>(x) y = Mul(x, h)",
        "Relu, Min": (
            "a = Add(x, three) b = Relu(a) c = Min(b, six) d = Mul(sixth, c) y = Mul(d, x)"
        ),
        "torch: Max, Min": "a = Add(x, three) b = Max(zero, a) c = Min(b, six) d = Div(c, six)"
        " y = Mul(x, d)",
    },
    ("Mish(x)", "Mish"): {
        "torch": "s = Softplus(x) t = Tanh(s) y = Mul(x, t)",
        "torch, threshold of 20": (
            "p = Softplus(x) g = Greater(x, twenty) s = Where(g, x, p) t = Tanh(s) y = Mul(x, t)"
        ),
        "exp and log": (
            "e = Exp(x) a = Add(one, e) s = Log(a) t = Tanh(s) y = Mul(t, x)"
        ),
        "exp only": (
            "e = Exp(x) a = Add(one, e) q = Mul(a, a) n = Sub(q, one) d = Add(q, one) t = Div(n, d)"
            " y = Mul(x, t)"
        ),
    },
    ("Softplus(x)", "Softplus"): {
        "log(1 + exp(x))": "e = Exp(x) a = Add(e, one) y = Log(a)",
        "torch": "p = Softplus(x) g = Greater(x, twenty) y = Where(g, x, p)",
    },
    ("Sigmoid(x)", "Sigmoid"): {
        "1 / (1 + exp(-x))": "n = Neg(x) e = Exp(n) a = Add(one, e) y = Div(one, a)",
        "by tanh": "h = Mul(x, half) t = Tanh(h) a = Add(t, one) y = Mul(a, half)",
    },
    ("Softsign(x)", "Softsign"): {"torch": "a = Abs(x) b = Add(a, one) y = Div(x, b)"},
    ("LeakyRelu<alpha=0.1>(x)", "LeakyReLU"): {
        "max(x, x / 10)": "a = Mul(tenth, x) y = Max(a, x)",
        "where": "a = Mul(x, tenth) g = Greater(x, zero) y = Where(g, x, a)",
        "caffe": "p = Relu(x) n = Neg(x) r = Relu(n) a = Mul(r, tenth) y = Sub(p, a)",
    },
    ("PRelu(x, slopes)", "PReLU"): {
        "keras": "p = Relu(x) n = Neg(x) r = Relu(n) a = Mul(r, minus_slopes) y = Add(p, a)",
    },
    ("Elu(x)", "ELU"): {
        "where": "e = Exp(x) m = Sub(e, one) g = Greater(x, zero) y = Where(g, x, m)",
        "halves": "p = Relu(x) n = Min(x, zero) e = Exp(n) m = Sub(e, one) y = Add(p, m)",
    },
    ("Selu(x)", "SELU"): {
        "where": (
            "e = Exp(x) m = Sub(e, one) a = Mul(alpha, m) g = Greater(x, zero) w = Where(g, x, a)"
            " y = Mul(gamma, w)"
        ),
        "Elu": "e = Elu<alpha=1.6732632>(x) y = Mul(e, gamma)",
    },
}  # fmt: skip

QUANTISED = {
    "SiLU": "s = Sigmoid(c) a = Mul(c, s)",
    "HardSwish": "p = Add(c, three) q = Clip(p, zero, six) m = Mul(q, sixth) a = Mul(c, m)",
    "GELU": (
        "d = Div(c, root2) e = Erf(d) p = Add(e, one) m = Mul(c, p) a = Mul(m, half)"
    ),
    "LeakyReLU": "n = Mul(c, tenth) a = Max(c, n)",
}  # fmt: skip
"""From c to a."""

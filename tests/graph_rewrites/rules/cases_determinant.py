"""Det: linear in each number."""

from .harness import Case


def singular(rng, shape):
    """Matrices whose last two rows are equal."""
    matrices = rng.standard_normal(shape)
    matrices[..., -1, :] = matrices[..., -2, :]
    return matrices


CASES = [
    *(Case("Det", [("N", n, n)], note=f"{n} rows") for n in (1, 2, 3, 5)),
    Case("Det", [("N", 2, 3, 3)], note="two batch axes"),
    Case("Det", [(3, 3)], note="one matrix"),
    Case("Det", [("N", 3, 3)], domain=singular, note="singular"),
]

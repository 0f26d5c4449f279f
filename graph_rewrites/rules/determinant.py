"""Det, by minors: right for singular matrices too, which have no inverse."""

from __future__ import annotations

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import static_dims


@vjp("Det")
def det_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Det: of the matrices x (…, n, n)  ->  ct · cofactors, each a determinant but for its sign."""
    (ct,), (x,) = cts, node.inputs
    rank, (size,) = op.rank(x), static_dims(op.graph, x, [-1])
    spread = op.Unsqueeze(ct, [-2, -1])
    if size == 1:
        return [spread]
    others = np.array([[j for j in range(size) if j != i] for i in range(size)])
    rows = op.Gather(x, others, axis=rank - 2)  # (…, n, n-1, n)
    both = op.Gather(rows, others, axis=rank)  # (…, n, n-1, n, n-1)
    lead = range(rank - 2)
    minors = op.Det(op.Transpose(both, perm=[*lead, rank - 2, rank, rank - 1, rank + 1]))
    signs = (-1.0) ** np.add.outer(range(size), range(size))
    return [op.Mul(spread, op.Mul(minors, signs.astype(np.float32)))]

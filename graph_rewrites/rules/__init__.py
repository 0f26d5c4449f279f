"""The rules, and how one is written.

A rule is a function of three arguments that returns one cotangent, or None, per input::

    @vjp("Sigmoid", activation=True)
    def sigmoid_vjp(op, node, cts):
        (ct,), (y,) = cts, node.outputs
        return [op.Mul(ct, op.Mul(y, op.Sub(1.0, y)))]

- `op` writes nodes (`graph_rewrites.emit`); tensors are names; numbers and lists become constants.
- `node` is the forward node: `node.inputs`, `node.outputs`, `node.attr("axis", 0)`,
  `node.shape(x)`, `node.constant(w)` (None where the tensor is no constant).
- `cts` holds one cotangent per output, None where nothing depends on that output. At least one is
  there. A cotangent is float32 and has the shape of its tensor, whatever that tensor's own type: a
  quantised tensor's cotangent is that of its dequantised value.
- The answer has one entry per input, of a loop also per tensor that its body captures: a cotangent
  in the shape of that input, or None where the operator has no derivative in it (indices, shapes,
  bounds). None for an input that does depend on what is differentiated is an error, never a
  silently dropped term.
- Masks read the output of an activation, not its input, so that the runtime can go on fusing the
  activation into the convolution before it.
- An operator without a rule gets that of its body, where ONNX defines it by one; LSTM, GRU and RNN
  that of a loop over their steps (`graph_rewrites.expansion`, `scans`).
- Rules are written for clarity in canonical form (opset 18 to 21, explicit pads); the batch is
  always symbolic, height and width may be. Speed is the business of `lowering`.

`graph_rewrites.testing.check_adjoint` and `check_vjp` test a rule numerically.
"""

from __future__ import annotations

from graph_rewrites.rules import (
    activations,
    arithmetic,
    contraction,
    deform,
    determinant,
    elementary,
    grids,
    indexing,
    layout,
    linear,
    normalization,
    pooling,
    quantization,
    reductions,
    regions,
    relu,
    resampling,
    sampling,
    spectral,
)
from graph_rewrites.rules.table import Cotangents, Rule, RuleTable, VjpFn, vjp, zero

DEFAULT_RULES = RuleTable.collect(
    relu,
    activations,
    arithmetic,
    elementary,
    linear,
    pooling,
    normalization,
    layout,
    contraction,
    indexing,
    resampling,
    grids,
    deform,
    regions,
    determinant,
    spectral,
    reductions,
    quantization,
    sampling,
)

__all__ = ["DEFAULT_RULES", "Cotangents", "Rule", "RuleTable", "VjpFn", "vjp", "zero"]

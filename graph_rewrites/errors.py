"""Everything that `graph_rewrites` raises on purpose.

::

    GraphRewriteError
    ├── ModelError                       the file, not the call, is at fault
    │   ├── UnsupportedControlFlowError  If, Loop or Scan on the path that must be differentiated
    │   ├── UnsupportedOperatorError     an operator that canonical form cannot express
    │   ├── UnknownShapeError            a shape is needed and the file does not tell it
    │   └── SeveralTargetsError          this graph explains one target of an image at a time
    ├── UnknownTensorError               no tensor or layer of that name; suggests the nearest
    ├── NameClashError                   a prefix or name is in use already
    ├── NoGradientPathError              the explained tensor does not depend on what was asked for
    ├── MissingRuleError                 an operator on the path has no rule
    └── RuleError                        a rule broke its contract

Every message says what, where (node, operator, opset) and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GraphRewriteError(Exception):
    """Base of all errors raised by `graph_rewrites`."""


class ModelError(GraphRewriteError):
    """The model cannot be used as it is."""


class UnsupportedControlFlowError(ModelError):
    """If, Loop or Scan lies between the input and the explained tensor."""


class UnsupportedOperatorError(ModelError):
    """An operator has no canonical form."""


class UnknownShapeError(ModelError):
    """A shape that a rewrite needs is not known."""

    @classmethod
    def of(cls, tensor: str, writer: object | None, foreign: object | None) -> UnknownShapeError:
        """Name a tensor of unknown rank, its writer, and the custom operator that hides the rank.

        The last two are None where there are none.
        """
        written = f", written by {writer}," if writer else ""
        if not foreign:
            remedy = "declare the shapes of the model's inputs and run onnx.shape_inference"
            return cls(f"the rank of tensor {tensor!r}{written} is unknown; {remedy}")
        behind = "" if foreign is writer else f" behind {foreign}"
        return cls(
            f"the rank of tensor {tensor!r}{written} is unknown{behind}; use the model as it was "
            "before it got operators that are not ONNX's own"
        )


class SeveralTargetsError(ModelError):
    """Several targets of one image cannot share a forward pass of this graph."""


class UnknownTensorError(GraphRewriteError):
    """The model has no tensor or layer of this name."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], remedy: str = "") -> UnknownTensorError:
        """Name what is missing and the nearest names that exist, or else the remedy."""
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        hint = hint or (f"; {remedy}" if remedy else "")
        return cls(f"the model has no {kind} {name!r}{hint}")


class NameClashError(GraphRewriteError):
    """A prefix or tensor name is in use already."""


class NoGradientPathError(GraphRewriteError):
    """No differentiable path leads from the explained tensor to what was asked for."""

    @classmethod
    def of(cls, tensor: str, name: str, end: object | None) -> NoGradientPathError:
        """Name both tensors, and the node at which every path ends; None where there is no path."""
        if end is None:
            return cls(
                f"{tensor!r} is not computed from {name!r}; choose a tensor that lies before it"
            )
        return cls(
            f"{tensor!r} does not depend on {name!r} over any differentiable path: {end} passes "
            "no derivative on; choose a tensor or layer behind this node"
        )


class MissingRuleError(GraphRewriteError):
    """An operator that must be differentiated has no rule."""


class RuleError(GraphRewriteError):
    """A rule returned something that its contract forbids."""

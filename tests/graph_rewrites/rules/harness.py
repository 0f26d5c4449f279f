"""What a row of the case tables is, and how it is run under onnxruntime."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from graph_rewrites.rules.table import Rule
from graph_rewrites.testing import Domain, Run, check_adjoint, check_vjp, normal

BATCHES = (1, 3)
SIZES = {"C": 4, "H": 7, "W": 6, "L": 5, "M": 1}


@dataclass(frozen=True)
class Fed:
    """A run-time input: a fixed `value`, or one drawn from the case's domain in `shape`."""

    value: Any = None
    shape: tuple[int | str, ...] = ()
    dtype: Any = np.float32

    @property
    def array(self) -> np.ndarray | None:
        return None if self.value is None else np.asarray(self.value, self.dtype)


Input = tuple[int | str, ...] | np.ndarray | Fed | None
"""A shape: a float32 run-time input. An array: an initializer. None: an omitted input."""


@dataclass(frozen=True)
class Case:
    """One operator in one corner: what its rule is tested on.

    Attributes:
        op: operator type.
        inputs: what it reads, see `Input`. "N" is tried with 1 and 3; see SIZES for other symbols.
        attrs: the node's attributes.
        kind: "linear" (in each input apart), "piecewise" (linear between kinks: exact secants with
            step 0.25; take domain=distinct) or "smooth" (central differences in float64).
        domain: where inputs are drawn from; a sequence gives one for each input.
        note: the corner, in a few words; part of the test's name.
        wrt: positions of the inputs that must get a cotangent; default: all float run-time inputs.
        outputs: how many outputs the node has, or their names, "" for an omitted one.
        opset: operator set version.
        twin: an operator whose derivative the rule stands for instead (straight-through rules).
    """

    op: str
    inputs: Sequence[Input]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["linear", "piecewise", "smooth"] = "smooth"
    domain: Domain | Sequence[Domain] = normal
    note: str = ""
    wrt: tuple[int, ...] | None = None
    outputs: int | Sequence[str] = 1
    opset: int = 21
    twin: str | None = None

    def __str__(self) -> str:
        parts = [self.op, self.note or ",".join(f"{k}={v}" for k, v in self.attrs.items())]
        return "-".join(part.replace(" ", "_") for part in parts if part)

    @property
    def batched(self) -> bool:
        """Whether the batch is free."""
        shapes = [given.shape if isinstance(given, Fed) else given for given in self.inputs]
        return any(isinstance(shape, tuple) and "N" in shape for shape in shapes)

    @property
    def names(self) -> list[str]:
        return ["" if given is None else f"x{i}" for i, given in enumerate(self.inputs)]

    def model(self) -> onnx.ModelProto:
        """The one-operator model."""
        values, constants = [], []
        for name, given in zip(self.names, self.inputs, strict=True):
            if isinstance(given, np.ndarray):
                constants.append(onnx.numpy_helper.from_array(given, name))
            elif isinstance(given, Fed):
                elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(given.dtype))
                shape = given.shape if given.array is None else given.array.shape
                values.append(helper.make_tensor_value_info(name, elem_type, shape))
            elif given is not None:
                values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, given))
        count = self.outputs
        outputs = [f"y{i}" for i in range(count)] if isinstance(count, int) else list(count)
        node = helper.make_node(self.op, self.names, outputs, **self.attrs)
        declared = [onnx.ValueInfoProto(name=name) for name in outputs if name]
        graph = helper.make_graph([node], "case", values, declared, constants)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def twin_model(self) -> onnx.ModelProto | None:
        """`twin` of the first input, under the names of `model`."""
        if self.twin is None:
            return None
        model = self.model()
        (node,) = model.graph.node
        del node.input[1:], node.output[1:], node.attribute[:]
        node.op_type = self.twin
        return model

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """Fixed values of run-time inputs."""
        return {
            name: given.array
            for name, given in zip(self.names, self.inputs, strict=True)
            if isinstance(given, Fed) and given.array is not None
        }

    def check(self, rule: Rule, batch: int, *, optimised: bool) -> float:
        """Check `rule` on this case; the relative error, or AssertionError."""
        domain = self.domain
        given: dict[str, Any] = {
            "rule": rule,
            "wrt": self.wrt,
            "feeds": self.feeds,
            "domain": domain if callable(domain) else dict(zip(self.names, domain, strict=False)),
            "sizes": {**SIZES, "N": batch},
            "runtime": partial(onnxruntime, optimised=optimised),
            "twin": self.twin_model(),
        }
        if self.kind == "smooth":
            return check_vjp(self.model(), **given)
        return check_adjoint(self.model(), step=0.25 if self.kind == "piecewise" else 1.0, **given)


def onnxruntime(model: onnx.ModelProto, *, optimised: bool = True) -> Run:
    """Open `model` in onnxruntime on the CPU."""
    return partial(_session(model.SerializeToString(), optimised).run, None)


@lru_cache(maxsize=16)
def _session(data: bytes, optimised: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def collect() -> list[Case]:
    """The rows of CASES of every `cases_*.py` beside this file."""
    folder = Path(__file__).parent
    modules = sorted(
        m.name for m in pkgutil.iter_modules([str(folder)]) if m.name.startswith("cases_")
    )
    return [
        case for name in modules for case in importlib.import_module(f".{name}", __package__).CASES
    ]

"""The rule table: which function carries a cotangent back through which operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, ModuleType

from graph_rewrites.emit import Emitter
from graph_rewrites.layouts import ACTIVATIONS
from graph_rewrites.node import Node

Cotangents = Sequence[str | None]
VjpFn = Callable[[Emitter, Node, Cotangents], Cotangents]


@dataclass(frozen=True)
class Rule:
    """How one operator propagates cotangents.

    Attributes:
        op_type: the operator.
        fn: the vector-Jacobian product; None declares the derivative to be zero.
        activation: whether `other_activations` applies to it.
    """

    op_type: str
    fn: VjpFn | None
    activation: bool = False

    @property
    def is_zero(self) -> bool:
        """Whether the derivative is declared to be zero."""
        return self.fn is None


def vjp(*op_types: str, activation: bool = False) -> Callable[[VjpFn], VjpFn]:
    """Declare the function below as the rule of `op_types`. Nothing is registered anywhere."""

    def declare(fn: VjpFn) -> VjpFn:
        fn.__dict__["rules"] = tuple(Rule(op_type, fn, activation) for op_type in op_types)
        return fn

    return declare


def zero(*op_types: str) -> tuple[Rule, ...]:
    """Declare that these operators pass nothing back: their derivative is zero or undefined."""
    return tuple(Rule(op_type, None) for op_type in op_types)


@dataclass(frozen=True)
class RuleTable:
    """An immutable map from operator to `Rule`."""

    rules: Mapping[str, Rule]

    @classmethod
    def collect(cls, *modules: ModuleType) -> RuleTable:
        """Gather every rule declared in `modules`; two for one operator are an error."""
        rules: dict[str, Rule] = {}
        for module in modules:
            for rule in _declared(module):
                if rule.op_type in rules:
                    raise ValueError(f"two rules for {rule.op_type}")
                rules[rule.op_type] = rule
        return cls(MappingProxyType(rules))

    def override(self, **functions: VjpFn) -> RuleTable:
        """A table in which the operators named have these rules instead."""
        rules = dict(self.rules)
        for op_type, fn in functions.items():
            old = rules.get(op_type, Rule(op_type, fn, activation=op_type in ACTIVATIONS))
            rules[op_type] = replace(old, fn=fn)
        return RuleTable(MappingProxyType(rules))

    def get(self, op_type: str) -> Rule | None:
        """The rule of an operator, None where there is none."""
        return self.rules.get(op_type)


def _declared(module: ModuleType) -> Iterator[Rule]:
    for value in vars(module).values():
        if getattr(value, "__module__", None) == module.__name__ and hasattr(value, "rules"):
            yield from value.rules
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Rule))

"""The reverse sweep: carry cotangents from the explained tensor back to what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from graph_rewrites.activity import active_tensors, dead_end
from graph_rewrites.canonical import open_canonical
from graph_rewrites.chains import Chain, Chains, find_chains
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import (
    NameClashError,
    NoGradientPathError,
    RuleError,
    UnknownShapeError,
)
from graph_rewrites.expansion import expansion
from graph_rewrites.graph import Graph
from graph_rewrites.layers import resolve
from graph_rewrites.node import Node
from graph_rewrites.order import topological
from graph_rewrites.rows import ForwardTensors, Rows
from graph_rewrites.rules import DEFAULT_RULES
from graph_rewrites.rules.quantization import quantize_vjp
from graph_rewrites.rules.refused import refusal
from graph_rewrites.rules.relu import (
    RELU_RULES,
    ReluSite,
    clip_vjp,
    gradient,
    is_guard,
    relu_site,
)
from graph_rewrites.rules.table import Rule, RuleTable
from graph_rewrites.scores import find_scores
from graph_rewrites.stamps import (
    CT_KEY,
    FORWARD_KEY,
    OP_KEY,
    PREFIX_KEY,
    RULE_KEY,
    is_original,
    note_sweep,
    refuse_lowered,
    sweeps,
)
from graph_rewrites.tensor_type import TensorType

OTHER_ACTIVATIONS = ("gradient", "positive", "strict")


def differentiate(
    model: onnx.ModelProto,
    wrt: str | Sequence[str],
    of: str | None = None,
    relu: str = "gradient",
    other_activations: str = "gradient",
    rules: RuleTable = DEFAULT_RULES,
    prefix: str = "grad",
) -> onnx.ModelProto:
    """Append an explicit backward graph to a model.

    Args:
        model: any CNN; one that is not canonical yet is canonicalised with a free batch.
        wrt: tensors or layer paths to differentiate with respect to, or one of them.
        of: the tensor to differentiate; by default the class scores.
        relu: what a ReLU does on the way back: "gradient", "deconvnet" or "guided".
        other_activations: what the others do: "gradient", "positive" (their gradient, clamped at
            0) or "strict" (an error).
        rules: the rule table.
        prefix: begins the names of everything added.

    Returns:
        The model with one more input, the cotangent of `of` (float32, its shape; named
        "cotangent" for the prefix "grad", else "<prefix>/cotangent"), and one more output
        "<prefix>/<name>" (float32, shaped like its tensor) per name in `wrt`.

    Raises:
        UnknownTensorError: no tensor or layer of that name.
        NoGradientPathError: `of` does not depend on a name in `wrt`.
        MissingRuleError: an operator in between has no rule.
        ModelError: the model was lowered.
        NameClashError: the prefix is in use.
        ValueError: `wrt` is empty, or a setting is none of those listed.
    """
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    if not names:
        raise ValueError("wrt names no tensor; give the name of at least one")
    graph = open_canonical(model)
    refuse_lowered(graph.metadata)
    target = resolve(graph, of).gradient_at if of is not None else find_scores(graph).tensor
    sweep = Sweep(graph, prefix, relu, other_activations, rules)
    seed = "cotangent" if prefix == "grad" else f"{prefix}/cotangent"
    graph.add_input(seed, TensorType(onnx.TensorProto.FLOAT, graph.shape(target)))
    places = {name: resolve(graph, name).gradient_at for name in names}
    cotangents = sweep.pull_back({target: seed}, places)
    for name, tensor in places.items():
        sweep.output(f"{prefix}/{name}", cotangents[tensor], tensor)
    sweep.finish()
    return graph.export()


@dataclass
class Sweep:
    """One backward graph over the forward of `graph`.

    Attributes:
        graph: the canonical graph, edited in place.
        prefix: begins all names; must be new to the graph.
        relu: rule of the ReLUs.
        other_activations: policy for the other activations.
        rules: the rule table.
        rows: which image each row of the cotangents belongs to; None where they correspond.
        active: the tensors that get a cotangent.
    """

    graph: Graph
    prefix: str
    relu: str = "gradient"
    other_activations: str = "gradient"
    rules: RuleTable = DEFAULT_RULES
    rows: Rows | None = None
    active: frozenset[str] = field(init=False, default=frozenset())
    _forward: ForwardTensors = field(init=False)
    _chains: Chains = field(init=False)
    _clamped: dict[str, dict[Chain, list[str]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.relu not in RELU_RULES:
            raise ValueError(f"relu must be one of {', '.join(RELU_RULES)}, not {self.relu!r}")
        if self.other_activations not in OTHER_ACTIVATIONS:
            allowed = ", ".join(OTHER_ACTIVATIONS)
            raise ValueError(
                f"other_activations must be one of {allowed}, not {self.other_activations!r}"
            )
        if self.prefix in sweeps(self.graph):
            raise NameClashError(
                f"the prefix {self.prefix!r} is in use in this model; choose another one"
            )
        self._forward = ForwardTensors(self.graph, self.prefix, self.rows)

    def pull_back(self, seeds: Mapping[str, str], wrt: Mapping[str, str]) -> dict[str, str]:
        """Emit the backward graph; return the cotangent of every tensor in `wrt`.

        Args:
            seeds: the tensors that are differentiated, with their cotangents.
            wrt: tensor to differentiate by, for each name that a message should use.
        """
        nodes = topological([n for n in self.graph.nodes if is_original(n)])
        active = active_tensors(self.graph, nodes, set(wrt.values()), seeds, self.rules)
        for name, tensor in wrt.items():
            if tensor not in active:
                end = dead_end(self.graph, nodes, tensor, seeds, self.rules)
                raise NoGradientPathError.of(next(iter(seeds)), name, end)
        self.active = active
        self._chains = find_chains(self.graph, {*seeds, *wrt.values()})
        cotangents = {tensor: [seed] for tensor, seed in seeds.items()}
        for node in reversed(nodes):
            if active.intersection(node.outputs) and active.intersection(_sources(node)):
                if self.rows is not None:
                    self.rows.require_apart(node)
                self._visit(node, cotangents, active)
        return {tensor: self._total(tensor, cotangents) for tensor in wrt.values()}

    def output(self, name: str, cotangent: str, like: str) -> None:
        """Publish `cotangent` as the graph output `name`, typed like the tensor `like`."""
        stamp = {PREFIX_KEY: self.prefix, FORWARD_KEY: like}
        self.graph.append("Identity", [cotangent], [name], name=name, metadata=stamp)
        type_ = TensorType(onnx.TensorProto.FLOAT, self.graph.shape(like))
        self.graph.add_output(name, type_)

    def finish(self, needed: Collection[str] = ()) -> None:
        """Drop what neither an output nor `needed` asks for, and note the sweep in the metadata."""
        prune(self.graph, self.prefix, needed)
        settings = {"relu": self.relu, "other_activations": self.other_activations}
        if self.rows is not None:
            settings.update(rows=self.rows.index, targets=str(self.rows.targets))
        note_sweep(self.graph, self.prefix, settings)

    def emitter(self, forward: str, op_type: str, rule: str) -> Emitter:
        """An emitter whose nodes are named and stamped for one forward node."""
        return backward_emitter(self.graph, self.prefix, forward, op_type, rule, self._forward.read)

    # -- one node --------------------------------------------------------------------------------

    def _visit(self, node: Node, cotangents: dict[str, list[str]], active: Collection[str]) -> None:
        chain = self._chains.get(node.output)
        if chain is not None and self._rectifies(chain):
            if node.output == chain.output:
                dx = self._rectify(node, self._total(node.output, cotangents), chain.name)
                self._receive(chain.input, dx, cotangents)
            return
        cts = [self._total(o, cotangents) if o in cotangents else None for o in node.outputs]
        if not any(cts):
            raise RuleError(f"the sweep reached {node} before its consumers; the graph is unsorted")
        answers = self._apply(node, cts)
        sources = _sources(node)
        if len(answers) != len(sources):
            raise RuleError(
                f"the rule of {node} returned {len(answers)} cotangents for "
                f"{len(sources)} inputs; it must return one, or None, per input"
            )
        for position, (name, answer) in enumerate(zip(sources, answers, strict=True)):
            if name not in active:
                continue
            if answer is None:
                raise RuleError(
                    f"the rule of {node} has no derivative in its input {position} ({name!r}), "
                    "which depends on what is differentiated; override the rule of "
                    f"{node.op_type} or choose a tensor behind this node"
                )
            self._receive(name, answer, cotangents, chain)

    def _receive(
        self,
        tensor: str,
        ct: str,
        cotangents: dict[str, list[str]],
        chain: Chain | None = None,
    ) -> None:
        """Note a contribution to the cotangent of `tensor`, of a node or of one inside `chain`."""
        self.graph.types[ct] = TensorType(onnx.TensorProto.FLOAT, self.graph.shape(tensor))
        parts = cotangents.setdefault(tensor, [])
        if chain is not None and tensor == chain.input and self.other_activations == "positive":
            parts = self._clamped.setdefault(tensor, {}).setdefault(chain, [])
        parts.append(ct)

    def _apply(self, node: Node, cts: Sequence[str | None]) -> Sequence[str | None]:
        rule, chain = self._rule(node), self._chains.get(node.output)
        own = rule.fn in (clip_vjp, quantize_vjp)
        site = relu_site(self.graph, node) if own else None
        ct = next(c for c in cts if c)
        rest = [None for _ in node.inputs[1:]]
        if site is not None and chain is None:
            return [self._rectify(node, ct, node.op_type), *rest]
        activation = chain is not None or (rule.activation and not is_guard(self.graph, node))
        policy = self.other_activations if activation else "vjp"
        if policy == "strict":
            raise RuleError(
                f"{chain or node} is an activation but no ReLU, and other_activations is 'strict'; "
                "use 'gradient' or 'positive'"
            )
        op = self.emitter(node.output, node.op_type, policy)
        if site is not None:  # inside the chain of a hard-sigmoid
            return [gradient(op, site, ct), *rest]
        assert rule.fn is not None
        try:
            answers = rule.fn(op, node, cts)
        except UnknownShapeError as error:
            raise UnknownShapeError(f"the rule of {node} needs more shapes: {error}") from error
        if policy == "positive" and chain is None:
            return [None if answer is None else op.Relu(answer) for answer in answers]
        return answers

    def _rectifies(self, chain: Chain) -> bool:
        """Whether the ReLU rule applies to `chain`: not where the caller overrode rules in it."""
        ops = {node.op_type for node in chain.nodes}
        default = all(self.rules.get(op) is DEFAULT_RULES.get(op) for op in ops)
        return chain.kind != "smooth" and default

    def _rectify(self, node: Node, ct: str, op_type: str) -> str:
        site = relu_site(self.graph, node, self._chains)
        assert site is not None
        return emit_relu(self.emitter(node.output, op_type, self.relu), site, self.relu, ct)

    def _rule(self, node: Node) -> Rule:
        rule = self.rules.get(node.op_type) if not node.domain else None
        rule = rule or expansion(self, node)
        if rule is not None and rule.fn is not None:
            return rule
        raise refusal(node)

    def _total(self, tensor: str, cotangents: dict[str, list[str]]) -> str:
        """The sum of the contributions to a tensor's cotangent; computed once."""
        for chain, parts in self._clamped.pop(tensor, {}).items():
            op = self.emitter(chain.output, chain.name, "positive")
            self._receive(tensor, op.Relu(_sum(op, parts)), cotangents)
        parts = cotangents[tensor]
        if len(parts) > 1:
            total = _sum(self.emitter(tensor, "sum", "vjp"), parts)
            cotangents[tensor] = []
            self._receive(tensor, total, cotangents)
        return cotangents[tensor][0]


def backward_emitter(
    graph: Graph,
    prefix: str,
    forward: str,
    op_type: str,
    rule: str,
    read: Callable[[str], str] | None = None,
    before: Node | None = None,
) -> Emitter:
    """An emitter for the backward of one forward node, known by its first output."""
    stamp = {PREFIX_KEY: prefix, FORWARD_KEY: forward, OP_KEY: op_type, RULE_KEY: rule}
    return Emitter(graph, f"bwd/{prefix}/{forward}", stamp, read, before)


def emit_relu(op: Emitter, site: ReluSite, rule: str, ct: str) -> str:
    """Emit the backward of the ReLU at `site` under `rule`.

    The result has a name of its own and its node notes `ct`, so that `replace_relu_rule` can put
    another rule in the same place.
    """
    name = op.fresh("rectified")
    result = RELU_RULES[rule](op, site, ct)
    last = op.graph.producer(result)
    assert last is not None
    op.graph.rename_output(last, result, name)
    last.metadata[CT_KEY] = ct
    return name


def prune(graph: Graph, prefix: str, needed: Collection[str] = ()) -> None:
    """Remove the nodes of `prefix` that compute cotangents nobody asked for."""
    used = {*graph.outputs, *needed}
    dead = []
    for node in reversed(graph.nodes):
        ours = node.metadata.get(PREFIX_KEY) == prefix
        if ours and not used.intersection(node.outputs):
            dead.append(node)
        else:
            used.update((*node.inputs, *node.captures))
    graph.remove(dead)


def _sum(op: Emitter, parts: Sequence[str]) -> str:
    total = parts[0]
    for part in parts[1:]:
        total = op.Add(total, part)
    return total


def _sources(node: Node) -> tuple[str, ...]:
    """What a rule answers for: the inputs, then what subgraphs take from outside."""
    return (*node.inputs, *node.captures)

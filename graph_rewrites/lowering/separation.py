"""Several targets of an image: one backward pass each, over what the forward pass computed once.

The portable graph carries all targets as rows of one batch, and repeats every forward tensor that a
rule reads for each of them. In blocked layout nothing can be repeated along the batch; so the rows
go back one after the other, and all of them read the same masks and slopes (five classes of a
ConvNeXt-T on one thread: 6.4 multiples of the forward pass in place of 8.6).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.lowering.constants import is_fixed
from graph_rewrites.node import Node
from graph_rewrites.order import topological
from graph_rewrites.shapes import is_static
from graph_rewrites.stamps import PREFIX_KEY, is_original, sweeps

MOST = 8
"""Targets that go back apart; the graph grows with each of them."""


def separate_targets(graph: Graph) -> int:
    """Write the rows of every backward pass apart, in place; in how many passes that was done.

    Only passes of fixed shapes, of at most `MOST` targets.
    """
    found = [
        _separate(graph, prefix, settings["rows"], int(settings["targets"]))
        for prefix, settings in sweeps(graph).items()
        if "rows" in settings
    ]
    if any(found):
        graph.sort()
        graph.infer()
    return sum(found)


def _separate(graph: Graph, prefix: str, rows: str, targets: int) -> bool:
    part = _picture_part(graph, prefix)
    repeats = {node.output: node.input(0) for node in graph.consumers(rows)}
    images = {(graph.shape(name) or (None,))[0] for name in repeats.values()}
    (count,) = images if len(images) == 1 else (None,)
    if not isinstance(count, int) or targets > MOST:
        return False
    total = count * targets
    leaving = {name: _rows(graph, name, total) for name in _leaving(graph, part)}
    before = _before(graph, prefix, part, repeats, total)
    if before is None or not all(leaving.values()):
        return False
    between, entering = before
    op = Emitter(graph, f"bwd/{prefix}/apart", {PREFIX_KEY: prefix})
    copies = []
    for target in range(targets):
        names = dict(repeats)
        for name in entering:
            apart = op.Reshape(name, [count, targets, *graph.known_shape(name)[1:]])
            row = op.Slice(apart, [target], [target + 1], [1])
            names[name] = op.Squeeze(row, [1])
        copies.append(_copied(graph, [*between, *part], names, f"target{target}"))
    graph.remove(part)
    graph.remove_idle(name for node in between for name in node.outputs)
    for name, shape in leaving.items():
        joined = op.Concat(*(op.Unsqueeze(copy[name], [1]) for copy in copies), axis=1)
        together = op.Reshape(joined, shape)
        writer = graph.producer(together)
        assert writer is not None
        graph.rename_output(writer, together, name)
    return True


def _picture_part(graph: Graph, prefix: str) -> list[Node]:
    """The backward nodes from the first pictures on: dense layers keep all rows together."""
    part: list[Node] = []
    inside: set[str] = set()
    for node in graph.nodes:
        if node.metadata.get(PREFIX_KEY) != prefix:
            continue
        computed = any(name not in graph.initializers for name in node.inputs if name)
        pictures = any(len(graph.shape(name) or ()) > 2 for name in node.outputs)
        if (computed and pictures) or inside.intersection(node.inputs):
            part.append(node)
            inside.update(node.outputs)
    return part


def _before(
    graph: Graph, prefix: str, part: Sequence[Node], repeats: Collection[str], total: int
) -> tuple[list[Node], tuple[str, ...]] | None:
    """The nodes between rows and `part`, in order, and these rows; None where it has other sources.

    What is in between mixes the rows (flattened, to be scattered), or depends on how many they are.
    """
    between: list[Node] = []
    entering: dict[str, None] = {}
    seen = {*repeats, *(name for node in part for name in node.outputs)}
    pending = [name for node in part if node.output not in repeats for name in node.inputs]
    while pending:
        name = pending.pop()
        writer = graph.producer(name)
        if name in seen or is_fixed(graph, name) or (writer is not None and is_original(writer)):
            continue
        seen.add(name)
        shape = graph.shape(name) or ()
        if shape[:1] == (total,) and is_static(shape) and graph.is_float(name):
            entering[name] = None
        elif writer is None or writer.metadata.get(PREFIX_KEY) != prefix:
            return None  # another pass may copy it too
        else:
            between.append(writer)
            seen.update(writer.outputs)
            pending.extend(writer.inputs)
    return topological(between), tuple(entering)


def _leaving(graph: Graph, part: Sequence[Node]) -> Iterator[str]:
    """The tensors of `part` that others read."""
    own = set(map(id, part))
    for name in (name for node in part for name in node.outputs if name):
        read = any(id(reader) not in own for reader in graph.consumers(name))
        if read or name in graph.outputs:
            yield name


def _copied(
    graph: Graph, part: Sequence[Node], given: Mapping[str, str], label: str
) -> dict[str, str]:
    """Write the nodes of `part` again; what their tensors are called there."""
    names = dict(given)
    for node in part:
        if node.output in given:  # a forward tensor, repeated
            continue
        outputs = [name and f"{name}/{label}" for name in node.outputs]
        graph.append(
            node.op_type,
            [names.get(name, name) for name in node.inputs],
            outputs,
            attributes=node.attributes.values(),
            name=f"{node.name}/{label}",
            domain=node.domain,
            metadata=node.metadata,
        )
        names.update(zip(node.outputs, outputs, strict=True))
    return names


def _rows(graph: Graph, name: str, total: int) -> list[int]:
    """The shape of a tensor of `total` rows; empty where it is not known in full."""
    shape = graph.shape(name) or (None, None)
    known = [dim for dim in shape[1:] if isinstance(dim, int)]
    return [total, *known] if len(known) == len(shape) - 1 else []

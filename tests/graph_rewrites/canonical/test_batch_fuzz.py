"""Random chains of shape operators: freed or not, never freed wrongly."""

import math

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from graph_rewrites.canonical import canonical_facts, canonicalize
from tests.graph_rewrites.samples import graph_of

SOURCE = (4, 2, 6)


@st.composite
def _chains(draw: st.DrawFn) -> tuple[int, str]:
    """A fixed batch, and operators from (batch, 4, 2, 6) to something."""
    batch = draw(st.sampled_from([1, 2, 3]))
    dims = [batch, *SOURCE]
    steps, count = [], 0
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["Reshape", "Reshape", "Transpose", "Flatten", "Reduce"]))
        source, target = f"t{count}", f"t{count + 1}"
        if kind == "Transpose":
            perm = draw(st.permutations(range(len(dims))))
            steps.append(f"{target} = Transpose<perm={list(perm)}>({source})")
            dims = [dims[axis] for axis in perm]
        elif kind == "Flatten":
            axis = draw(st.integers(0, len(dims)))
            steps.append(f"{target} = Flatten<axis={axis}>({source})")
            dims = [math.prod(dims[:axis]), math.prod(dims[axis:])]
        elif kind == "Reduce":
            axis = draw(st.integers(0, len(dims) - 1))
            keep = len(dims) == 1 or draw(st.booleans())
            steps.append(f"a{count} = Constant<value_ints=[{axis}]>()")
            steps.append(f"{target} = ReduceMax<keepdims={int(keep)}>({source}, a{count})")
            dims = [*dims[:axis], *([1] if keep else []), *dims[axis + 1 :]]
        else:
            leading = dims[0] if draw(st.booleans()) else 1
            rest = draw(_factorisations(math.prod(dims) // leading))
            dims = [leading, *rest] if leading > 1 or draw(st.booleans()) else rest
            written = draw(_spellings(dims))
            steps.append(f"s{count} = Constant<value_ints={written}>()")
            steps.append(f"{target} = Reshape({source}, s{count})")
        count += 1
    return batch, f"{' '.join(steps)} y = Identity(t{count})"


@st.composite
def _factorisations(draw: st.DrawFn, size: int) -> list[int]:
    dims = []
    for _ in range(draw(st.integers(0, 4))):
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        dims.append(draw(st.sampled_from(divisors)))
        size //= dims[-1]
    return [*dims, size]


@st.composite
def _spellings(draw: st.DrawFn, dims: list[int]) -> list[int]:
    """The dimensions as a Reshape may be given them: one left open, or none."""
    written = list(dims)
    if draw(st.booleans()):
        written[draw(st.integers(0, len(dims) - 1))] = -1
    return written


@given(_chains())
@settings(max_examples=150, deadline=None)
def test_no_chain_is_freed_wrongly(chain: tuple[int, str]):
    batch, body = chain
    model = graph_of(f"agraph (float[{batch},4,2,6] t0) => (float[1] y) {{ {body} }}")
    model.graph.output[0].ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    canonical = canonicalize(inferred)
    images = np.random.default_rng(0).standard_normal((3 * batch, *SOURCE)).astype(np.float32)
    original, free = ReferenceEvaluator(model), ReferenceEvaluator(canonical)
    parts = [original.run(None, {"t0": part})[0] for part in np.split(images, 3)]
    if canonical_facts(canonical)["batch"] != "free":
        np.testing.assert_array_equal(free.run(None, {"t0": images[:batch]})[0], parts[0])
        return
    together = free.run(None, {"t0": images})[0]
    np.testing.assert_array_equal(together, np.concatenate(parts))
    for at in range(batch):
        alone = free.run(None, {"t0": images[at : at + 1]})[0]
        np.testing.assert_array_equal(alone, parts[0][at : at + 1])

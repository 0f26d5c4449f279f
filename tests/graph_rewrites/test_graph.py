"""The door: what goes in comes out, field by field, and edits touch nothing else."""

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from graph_rewrites.errors import ModelError, NameClashError
from graph_rewrites.graph import Graph
from graph_rewrites.tensor_type import TensorType
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.samples import LIGHT, graph_of, light


def _metadata(message: Message, key: str) -> None:
    message.metadata_props.add(key=key, value=f"value of {key}")  # type: ignore[attr-defined]


def _everything_node() -> onnx.NodeProto:
    """A node with an attribute of every type, and the values that GraphSurgeon stumbles over."""
    tensor = numpy_helper.from_array(np.arange(3, dtype=np.float32), "t")
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [1]),
        [4],
    )
    subgraph = helper.make_graph(
        [helper.make_node("Relu", ["captured"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [2])],
        doc_string="body doc",
    )
    float_type = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    node = helper.make_node("Everything", ["y", "", "captured"], ["z", "", "z2"], domain="my")
    values = {
        "float": 1.5,
        "int": 7,
        "bytes": b"\xff\xfe not UTF-8",
        "tensor": tensor,
        "graph": subgraph,
        "sparse": sparse,
        "type": float_type,
        "floats": [1.0, 2.0],
        "ints": [1, 2],
        "strings": ["a", "b"],
        "tensors": [tensor, tensor],
        "graphs": [subgraph, subgraph],
        "sparses": [sparse, sparse],
        "types": [float_type, float_type],
    }
    node.attribute.extend(helper.make_attribute(key, value) for key, value in values.items())
    node.attribute.append(AttributeProto(name="none", type=AttributeProto.INTS))
    node.attribute[0].doc_string = "attribute doc"
    node.overload = "overloaded"
    configuration = node.device_configurations.add(configuration_id="pair", pipeline_stage=1)
    sharding = configuration.sharding_spec.add(tensor_name="z", device=[0, 1])
    sharding.sharded_dim.add(axis=0).simple_sharding.add(dim_value=2, num_shards=2)
    return node


def _full_model() -> onnx.ModelProto:
    """A model in which every field of the model, the graph, its nodes and values is set."""
    model = graph_of(
        "agraph (float[N,2] x, float[2] captured) => (float[N,2] z)"
        " <float[N,2] y, float[2] z2> { y = Add(x, w) }",
        w=np.ones(2, np.float32),
    )
    model.graph.node.append(_everything_node())
    model.graph.input.append(
        helper.make_tensor_value_info("sequence", TensorProto.FLOAT, ["N", None, 3])
    )
    for message in (model, model.graph, *model.graph.node, *model.graph.initializer):
        message.doc_string = "a doc string"
        _metadata(message, "key")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.doc_string = f"doc of {value.name}"
        value.type.denotation = "IMAGE"
        _metadata(value, value.name)
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    model.producer_name, model.producer_version = "someone", "1.2"
    model.domain, model.model_version = "org.example", 42
    for node in model.graph.node:
        node.name = f"node {node.op_type}"
    annotation = model.graph.quantization_annotation.add(tensor_name="y")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    model.graph.sparse_initializer.add().CopyFrom(
        helper.make_sparse_tensor(
            helper.make_tensor("sparse", TensorProto.FLOAT, [1], [2.0]),
            helper.make_tensor("sparse_i", TensorProto.INT64, [1], [1]),
            [4],
        )
    )
    body = [helper.make_node("Relu", ["a"], ["b"])]
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("my", "F", ["a"], ["b"], body, opset))
    model.training_info.add().algorithm.name = "algorithm"
    model.configuration.add(name="pair", num_devices=2, device=["a", "b"])
    return model


@pytest.mark.parametrize("of", ["ModelProto", "GraphProto", "NodeProto", "ValueInfoProto"])
def test_the_full_model_sets_every_field_that_onnx_knows(of: str):
    model = _full_model()
    messages = {
        "ModelProto": [model],
        "GraphProto": [model.graph],
        "NodeProto": list(model.graph.node),
        "ValueInfoProto": list(model.graph.input),
    }[of]
    present = {field.name for message in messages for field, _ in message.ListFields()}
    assert present == {field.name for field in messages[0].DESCRIPTOR.fields}


def test_an_untouched_model_comes_out_equal_in_every_field():
    model = _full_model()
    before = model.SerializeToString()
    exported = Graph(model).export()
    assert _differences(exported, model) == []
    assert model.SerializeToString() == before


def test_an_edit_leaves_every_other_field_alone():
    model = _full_model()
    graph = Graph(model)
    graph.append("Relu", ["y"], ["extra"], name="added")
    graph.add_output("extra", TensorType(TensorProto.FLOAT, ("N", 2)))
    exported = graph.export()
    assert [node.name for node in exported.graph.node][-1] == "added"
    del exported.graph.node[-1], exported.graph.output[-1]
    assert _differences(exported, model) == []


@pytest.mark.parametrize("name", LIGHT)
def test_real_models_come_out_equal_without_initializers_among_inputs_and_idle_ones(name: str):
    model = light(name)
    exported = Graph(model).export()
    initialised = {tensor.name for tensor in model.graph.initializer}
    read = {name for node in model.graph.node for name in node.input}
    inputs = [value for value in model.graph.input if value.name not in initialised]
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.input[:], model.graph.initializer[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(weights)
    assert _differences(exported, model) == []


def _differences(a: Message, b: Message, path: str = "") -> list[str]:
    """Paths of the fields in which two messages differ."""
    found = []
    for field in a.DESCRIPTOR.fields:
        here = f"{path}.{field.name}"
        left, right = getattr(a, field.name), getattr(b, field.name)
        if field.is_repeated:
            if len(left) != len(right):
                found.append(f"{here}: {len(left)} against {len(right)}")
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                for i, (x, y) in enumerate(zip(left, right, strict=True)):
                    found += _differences(x, y, f"{here}[{i}]")
            elif list(left) != list(right):
                found.append(here)
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            if left != right:
                found.append(f"{here}: {left!r} against {right!r}")
        elif a.HasField(field.name) != b.HasField(field.name):
            found.append(f"{here}: present in one only")
        elif a.HasField(field.name):
            found += _differences(left, right, here)
    return found


def test_the_comparison_sees_a_difference():
    model, other = _full_model(), _full_model()
    other.graph.node[1].metadata_props[0].value = "changed"
    del other.graph.value_info[0]
    found = _differences(model, other)
    assert [path.partition(":")[0] for path in found] == [
        ".graph.node[1].metadata_props[0].value",
        ".graph.value_info",
    ]


_EXOTIC = ["INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT4E2M1", "STRING", "BFLOAT16"]


@pytest.mark.parametrize("kind", _EXOTIC)
def test_initializers_of_every_kind_stay_intact(kind: str):
    elem_type = getattr(TensorProto, kind)
    values = [b"a", "é".encode(), b""] * 600 if kind == "STRING" else [1.0, 0.5, 2.0] * 600
    for count in (3, 1800):  # kept in the light model, and set aside
        model = graph_of("agraph (float[N] x) => (float[N] y) { y = my.Foreign(x, w) }")
        model.graph.initializer.append(helper.make_tensor("w", elem_type, [count], values[:count]))
        graph = Graph(model)
        exported = graph.export()
        assert exported.graph.initializer == model.graph.initializer
        assert exported.graph.node[0].input == ["x", "w"]
        constant = graph.constant("w")
        assert constant is not None
        assert constant.shape == (count,)


def test_external_tensors_pass_lazily_and_are_named_when_their_value_is_needed():
    model = graph_of("agraph (float[N,2] x) => (float[N,2] y) { y = Add(x, w) }")
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    graph = Graph(model)
    assert graph.shape("y") == ("N", 2)
    assert _differences(graph.export().graph, model.graph) == []
    with pytest.raises(ModelError, match=r"'w' lies in external data.*load_external_data"):
        graph.constant("w")


def _branches(condition: str = "c") -> onnx.ModelProto:
    return graph_of(
        "agraph (bool c, float[2] x) => (float[2] y) { s = Relu(x)  y = If (" + condition + ") <"
        "then_branch = a () => (float[2] p) { p = Add(s, w) },"
        "else_branch = b () => (float[2] q) { q = Mul(s, w) }> }",
        w=np.array([3.0, 5.0], np.float32),
    )


def test_initializers_captured_by_both_branches_are_not_copied_into_them():
    model = _branches()
    exported = Graph(model).export()
    assert _differences(exported, model) == []
    branches = [attribute.g for attribute in exported.graph.node[1].attribute]
    assert [len(branch.initializer) for branch in branches] == [0, 0]
    feeds = {"c": np.array(True), "x": np.array([1.0, 2.0], np.float32)}
    assert run(exported, feeds)["y"].tolist() == [4.0, 7.0]


def test_captures_count_as_readers():
    graph = Graph(_branches())
    (branching,) = [node for node in graph.nodes if node.op_type == "If"]
    assert branching.captures == ("s", "w")
    assert graph.consumers("s") == [branching]
    graph.remove([branching])
    assert graph.consumers("s") == []


def test_three_thousand_unsorted_nodes_sort_without_recursion():
    count = 3000
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(count)]
    values = [helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, [2]) for i in (0, count)]
    model = helper.make_model(
        helper.make_graph(nodes[::-1], "chain", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    exported = Graph(model).export()
    assert list(exported.graph.node) == nodes
    onnx.checker.check_model(exported, full_check=True)


def test_sorting_a_sorted_model_changes_nothing():
    model = light("inception_v1")
    graph = Graph(model)
    graph.sort()
    assert list(graph.export().graph.node) == list(model.graph.node)


def test_a_cycle_is_an_error_that_names_a_node():
    model = graph_of("agraph (float[2] x) => (float[2] y) { y = Add(x, z) }")
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"], name="round"))
    with pytest.raises(ModelError, match=r"cycle through Add \(output 'y', opset 18\)"):
        Graph(model)


def test_of_equal_nodes_only_the_one_meant_is_removed():
    model = graph_of("agraph (float[2] x) => (float[2] y) { y = Relu(x) }")
    twins = [helper.make_node("Relu", ["x"], [f"twin{i}"]) for i in range(2)]
    model.graph.node.extend(twins)
    graph = Graph(model)
    graph.remove([graph.nodes[2]])
    assert [node.output for node in graph.nodes] == ["y", "twin0"]
    assert not graph.exists("twin1")
    assert [node.output for node in graph.consumers("x")] == ["y", "twin0"]


def test_symbolic_dimensions_keep_their_names():
    model = graph_of(
        "agraph (float[N,3,height,?] x) => (float[N,3,height,?] y)"
        " <float[N,3,height,?] a> { a = Relu(x)  y = Neg(a) }"
    )
    graph = Graph(model)
    assert graph.shape("x") == ("N", 3, "height", None)
    assert (graph.shape("y") or ())[:3] == ("N", 3, "height")
    assert _differences(graph.export(), model) == []


def test_initializers_are_no_inputs():
    model = graph_of(
        "agraph (float[N,2] x, float[2] w) => (float[N,2] y) { y = Add(x, w) }",
        w=np.ones(2, np.float32),
    )
    graph = Graph(model)
    assert graph.inputs == ["x"]
    assert [value.name for value in graph.export().graph.input] == ["x"]
    assert len(model.graph.input) == 2


def test_the_default_domain_has_one_name():
    model = graph_of("agraph (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.node[0].domain = model.opset_import[0].domain = "ai.onnx"
    exported = Graph(model).export()
    assert [(entry.domain, entry.version) for entry in exported.opset_import] == [
        ("", 18),
        ("my", 1),
    ]
    assert exported.graph.node[0].domain == ""


def test_renaming_does_not_reach_into_the_callers_model():
    model = graph_of("agraph (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }")
    before = model.SerializeToString()
    graph = Graph(model)
    graph.rename_output(graph.nodes[0], "a", "b")
    exported = graph.export()
    assert exported.graph.node[1].input == ["b"]
    assert model.SerializeToString() == before


def test_a_taken_name_is_refused():
    graph = Graph(graph_of("agraph (float[2] x) => (float[2] y) { y = Relu(x) }"))
    with pytest.raises(NameClashError, match="'y' exists already"):
        graph.append("Neg", ["x"], ["y"])


def test_types_of_custom_operators_outputs_come_from_the_file():
    graph = Graph(
        graph_of(
            "agraph (float[N,2] x) => (float[N,2] y) <float[N,2] a>"
            " { a = my.Foreign(x)  y = Relu(a) }"
        )
    )
    assert graph.type("a") == TensorType(TensorProto.FLOAT, ("N", 2))


def test_stale_types_of_inner_tensors_are_brought_up_to_date():
    model = graph_of(
        "agraph (float[1,2] x) => (float[1,2] y) <float[1,2] a> { a = Relu(x) y = Neg(a) }"
    )
    graph = Graph(model)
    for name in ("x", "y"):
        graph.retype(name, TensorType(TensorProto.FLOAT, ("N", 2)))
    graph.infer()
    (inner,) = graph.export().graph.value_info
    assert inner.type.tensor_type.shape.dim[0].dim_param == "N"


def test_outputs_of_a_node_can_be_taken_over_by_another():
    model = graph_of("agraph (float[2] x) => (float[2] y) { y = Relu(x) }")
    graph = Graph(model)
    (relu,) = graph.nodes
    graph.set_outputs(relu, ["positive"])
    graph.append("Neg", ["positive"], ["y"])
    result = run(graph.export(), {"x": np.array([1.0, -1.0], np.float32)})
    assert result["y"].tolist() == [-1.0, 0.0]


def test_a_node_can_be_put_before_another():
    model = graph_of("agraph (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }")
    graph = Graph(model)
    negate = graph.nodes[1]
    graph.append("Abs", ["a"], ["b"], before=negate)
    graph.set_inputs(negate, ["b"])
    assert [node.op_type for node in graph.nodes] == ["Relu", "Abs", "Neg"]
    run(graph.export(), {"x": np.zeros(2, np.float32)})

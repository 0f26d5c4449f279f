"""What a file is made of, where that shapes how it is explained."""

import onnx

_QUANTISED = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "QGemm",
    }
)


def is_quantised(model: onnx.ModelProto) -> bool:
    """Some of the file's arithmetic is on quantised values."""
    return any(
        node.op_type in _QUANTISED or node.op_type.startswith("QLinear")
        for node in model.graph.node
    )

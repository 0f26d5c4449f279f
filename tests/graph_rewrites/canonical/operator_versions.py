"""How operators are written from one operator set to the next, for `test_versions`."""

from dataclasses import dataclass

import numpy as np
import onnx

NEWEST = 26
"""The newest operator set that is supported."""
CHANGES: dict[str, list[int]] = {}
for _schema in onnx.defs.get_all_schemas_with_history():
    if not _schema.domain:
        CHANGES.setdefault(_schema.name, []).append(_schema.since_version)


@dataclass(frozen=True)
class Written:
    """How an operator is written from one operator set to another: `h` (2,4,6,6) becomes `r`."""

    op: str
    body: str
    first: int = 7
    last: int = NEWEST
    note: str = ""

    def opsets(self) -> list[int]:
        """The first, the last, and those that changed the operator."""
        changed = [v for v in CHANGES[self.op] if self.first <= v <= self.last]
        return sorted({self.first, *changed, self.last})


CASES = [
    Written("Softmax", "r = Softmax<axis=1>(h)", 7, 12, "over all trailing axes"),
    Written("Softmax", "r = Softmax(h)", 7, 12, "axis 1 by default"),
    Written("Softmax", "r = Softmax(h)", 13, note="the last axis by default"),
    Written("LogSoftmax", "r = LogSoftmax<axis=2>(h)", 7, 12),
    Written("LogSoftmax", "r = LogSoftmax<axis=1>(h)", 13),
    Written("BatchNormalization", "r = BatchNormalization<epsilon=0.1>(h, p4, q4, q4, p4)", 7),
    Written("Dropout", "r = Dropout<ratio=0.5>(h)", 7, 11),
    Written("Dropout", "r = Dropout(h, half)", 12),
    Written("Dropout", "m, k = Dropout(h)  f = Cast<to=1>(k)  r = Mul(m, f)", 12, note="mask read"),
    Written("Upsample", 'r = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>(h)', 7, 8),
    Written("Upsample", 'r = Upsample<mode="linear", scales=[1.0,1.0,1.5,2.0]>(h)', 7, 8),
    Written("Upsample", 'r = Upsample<mode="linear">(h, up)', 9, 9),
    Written("Resize", 'r = Resize<mode="linear">(h, up)', 10, 10),
    Written("Resize", 'r = Resize<mode="nearest">(h, down)', 10, 10, "shrunk"),
    Written("Resize", 'r = Resize<mode="linear">(h, none, up)', 11),
    Written("Resize", 'r = Resize<mode="cubic">(h, none, none, s2498)', 11, note="cubic to sizes"),
    Written(
        "Resize",
        'r = Resize<mode="linear", coordinate_transformation_mode="align_corners">(h, none, up)',
        11,
        note="corners",
    ),
    Written(
        "Resize",
        'r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
        ' nearest_mode="floor">(h, none, up)',
        11,
        note="nearest",
    ),
    Written("Resize", 'r = Resize<mode="linear", antialias=1>(h, , down)', 18, note="antialias"),
    Written("Slice", "r = Slice<axes=[2,3], starts=[1,-4], ends=[9,-1]>(h)", 7, 9),
    Written("Slice", "r = Slice(h, s1m4, s9m1, s23)", 10),
    Written("Slice", "r = Slice(h, sm1m1, sm9m9, s23, sm1m2)", 10, note="backwards"),
    Written("Pad", "r = Pad<pads=[0,0,1,2,0,0,0,1]>(h)", 7, 10),
    Written("Pad", 'r = Pad<mode="reflect", pads=[0,0,1,2,0,0,0,1]>(h)', 7, 10),
    Written("Pad", "r = Pad(h, s00120001, half)", 11),
    Written("Pad", 'r = Pad<mode="edge">(h, s00120001)', 11, note="edge"),
    Written("Pad", 'r = Pad<mode="constant">(h, s1201, half, s23)', 18, note="named axes"),
    Written("Pad", 'r = Pad<mode="wrap">(h, s00120001)', 19, note="wrap"),
    Written("Clip", "r = Clip<min=0.0, max=6.0>(h)", 7, 10),
    Written("Clip", "r = Clip<max=0.5>(h)", 7, 10),
    Written("Clip", "r = Clip(h, zero, half)", 11),
    Written("Clip", "r = Clip(h, , half)", 11, note="no lower bound"),
    Written("Squeeze", "a = Unsqueeze<axes=[1]>(h)  r = Squeeze<axes=[1]>(a)", 7, 12),
    Written("Squeeze", "a = Unsqueeze(h, s1)  r = Squeeze(a, s1)", 13),
    Written("Unsqueeze", "a = Unsqueeze<axes=[0,5]>(h)  r = Squeeze<axes=[0,5]>(a)", 7, 12),
    Written("Unsqueeze", "a = Unsqueeze(h, sm1)  r = Squeeze(a, s4)", 13),
    Written("ReduceSum", "r = ReduceSum<axes=[1,3]>(h)", 7, 12),
    Written("ReduceSum", "r = ReduceSum(h, s23)", 13),
    Written("ReduceSum", "r = ReduceSum<noop_with_empty_axes=1>(h)", 13, note="no axes"),
    *(
        Written(op, f"r = {op}<axes=[2,-1]>(h)", 11, 17)
        for op in (
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceL2",
            "ReduceProd",
            "ReduceLogSumExp",
        )
    ),
    *(
        Written(op, f"r = {op}(h, s23)", 18)
        for op in (
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceL2",
            "ReduceProd",
            "ReduceLogSumExp",
        )
    ),
    Written("TopK", "r, i = TopK<axis=1, k=2>(h)", 7, 9),
    Written("TopK", "r, i = TopK<axis=1>(h, s2)", 10),
    Written("TopK", "r, i = TopK<axis=1, largest=0>(h, s2)", 11, note="smallest"),
    Written("Split", "a, b2 = Split<axis=1, split=[1,3]>(h)  r = Concat<axis=1>(b2, a)", 7, 12),
    Written("Split", "a, b2 = Split<axis=1>(h)  r = Concat<axis=1>(b2, a)", 7, 17),
    Written("Split", "a, b2 = Split<axis=1>(h, s13)  r = Concat<axis=1>(b2, a)", 13),
    Written("Split", "a, b2 = Split<axis=1, num_outputs=2>(h)  r = Concat<axis=1>(b2, a)", 18),
    Written("Cast", "d = Cast<to=11>(h)  e = Cast<to=1>(d)  r = Tanh(e)", 7),
    Written(
        "Gemm",
        "a = Flatten(h)  g = Gemm<alpha=0.5, beta=2.0>(a, w144, p5)  r = Unsqueeze<axes=[2]>(g)",
        7,
        12,
    ),
    Written("Gemm", "a = Flatten(h)  g = Gemm<transB=1>(a, w144t)  r = Unsqueeze(g, s2)", 13),
    Written("AveragePool", "r = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(h)"),
    Written(
        "AveragePool",
        "r = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0],"
        " count_include_pad=1>(h)",
        note="pads count",
    ),
    Written(
        "AveragePool",
        "r = AveragePool<kernel_shape=[2,2], strides=[3,3], ceil_mode=1>(h)",
        10,
        note="rounds up",
    ),
    Written(
        "AveragePool", "r = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(h)", 19, note="dilated"
    ),
    Written("MaxPool", "r = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(h)"),
    Written("MaxPool", "r = MaxPool<kernel_shape=[2,2], dilations=[2,1], ceil_mode=1>(h)", 10),
    Written("MaxPool", 'r, i = MaxPool<kernel_shape=[2,2], auto_pad="SAME_LOWER">(h)', 8),
    Written("LpPool", "r = LpPool<kernel_shape=[2,2], strides=[2,2], p=2>(h)"),
    Written("LpPool", "r = LpPool<kernel_shape=[2,2], dilations=[2,2], p=3>(h)", 18),
    Written("GroupNormalization", "r = GroupNormalization<num_groups=2>(h, p2, q2)", 18, 20),
    Written("GroupNormalization", "r = GroupNormalization<num_groups=2>(h, p4, q4)", 21),
    Written("InstanceNormalization", "r = InstanceNormalization(h, p4, q4)"),
    Written("LayerNormalization", "r = LayerNormalization<axis=2>(h, p6, p6)", 17),
    Written(
        "QuantizeLinear", "u = QuantizeLinear(h, tenth, z8)  r = DequantizeLinear(u, tenth, z8)", 10
    ),
    Written(
        "QuantizeLinear",
        "u = QuantizeLinear<axis=1>(h, t4, z84)  r = DequantizeLinear<axis=1>(u, t4, z84)",
        13,
        note="per axis",
    ),
    Written(
        "DequantizeLinear",
        "wd = DequantizeLinear<axis=0>(wi, t4)  r = Conv(h, wd)",
        13,
        note="weights",
    ),
    Written(
        "DequantizeLinear", "wd = DequantizeLinear(wi, tenth)  r = Conv(h, wd)", 10, note="weights"
    ),
    Written("Scatter", "r = Scatter<axis=1>(h, at, new)", 9, 10),
    Written("ScatterElements", "r = ScatterElements<axis=1>(h, at, new)", 11),
    Written("ScatterElements", 'r = ScatterElements<axis=1, reduction="add">(h, at, new)', 16),
    Written("ScatterND", "r = ScatterND(h, atnd, newnd)", 11),
    Written("Reshape", "r = Reshape(h, s20m13)"),
    Written("Reshape", "r = Reshape<allowzero=1>(h, s24m13)", 14, note="allowzero"),
    Written("Flatten", "a = Flatten<axis=2>(h)  r = Unsqueeze<axes=[2]>(a)", 7, 12),
    Written("PRelu", "r = PRelu(h, slope)"),
    Written("Sum", "r = Sum(h, b, h)"),
    Written("Max", "r = Max(h, b)"),
    Written("Min", "r = Min(h, b)"),
    Written("Max", "r = Max(h, zero)", 8, note="a ReLU"),
    Written("Pow", "e = Exp(h)  r = Pow(e, half)"),
    Written("Gather", "r = Gather<axis=1>(h, s20)"),
    Written("GatherElements", "r = GatherElements<axis=1>(h, at)", 11),
    Written("Where", "g = Greater(h, b)  r = Where(g, h, b)", 9),
    Written("Expand", "a = ReduceMax<axes=[1]>(h)  r = Expand(a, s1511)", 8, 17),
    Written("Tile", "r = Tile(h, s1221)"),
    Written("DepthToSpace", "r = DepthToSpace<blocksize=2>(h)"),
    Written("DepthToSpace", 'r = DepthToSpace<blocksize=2, mode="CRD">(h)', 11),
    Written("SpaceToDepth", "r = SpaceToDepth<blocksize=2>(h)"),
    Written("GridSample", 'r = GridSample<mode="bilinear">(h, grid)', 16, 19),
    Written("GridSample", 'r = GridSample<mode="linear">(h, grid)', 20),
    Written("Einsum", 'r = Einsum<equation="nchw,nciw->ncih">(h, b)', 12),
    Written("HardSwish", "r = HardSwish(h)", 14),
    Written("Mish", "r = Mish(h)", 18),
    Written("Gelu", 'r = Gelu<approximate="tanh">(h)', 20),
    Written("Swish", "r = Swish<alpha=1.5>(h)", 24),
    Written("RMSNormalization", "r = RMSNormalization<axis=3>(h, p6)", 23),
    Written("Attention", "r = Attention(h, b, h)", 23),
    Written("RotaryEmbedding", "r = RotaryEmbedding(h, cos, sin)", 23),
    Written("Elu", "r = Elu<alpha=0.7>(h)"),
    Written("LeakyRelu", "r = LeakyRelu(h)"),
    Written("Relu", "r = Relu(h)"),
    Written("LRN", "r = LRN<size=3, alpha=0.1>(h)"),
    Written("GlobalLpPool", "r = GlobalLpPool<p=2>(h)"),
    Written("GlobalMaxPool", "r = GlobalMaxPool(h)"),
    Written("MeanVarianceNormalization", "r = MeanVarianceNormalization(h)", 9),
    Written("Conv", 'r = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(h, w)'),
    Written("ConvTranspose", "r = ConvTranspose<strides=[2,2], output_padding=[1,0]>(h, w)"),
    Written("ConvTranspose", "r = ConvTranspose<strides=[2,2], output_shape=[11,12]>(h, w)"),
    Written("Constant", "k = Constant<value = float[1] {2.0}>()  r = Mul(h, k)"),
    Written("Constant", "k = Constant<value_floats = [1.5]>()  r = Mul(h, k)", 12),
    Written(
        "ConstantOfShape",
        "s = Shape(h)  z = ConstantOfShape<value = float[1] {1.5}>(s)  r = Mul(h, z)",
        9,
    ),
    Written("Identity", "i = Identity(h)  r = Neg(i)"),
    Written("CumSum", "r = CumSum<reverse=1>(h, one)", 11),
    Written(
        "OneHot",
        "a = ArgMax<axis=1, keepdims=0>(h)"
        "  o = OneHot<axis=1>(a, four, ends)  f = Cast<to=1>(o) r = Mul(h, f)",
        9,
    ),
    Written("Shape", "s = Shape(h)  a = Flatten<axis=1>(h)  t = Tanh(a)  r = Reshape(t, s)"),
    Written("Transpose", "r = Transpose<perm=[0,2,3,1]>(h)"),
    Written("Not", "g = Greater(h, b)  n = Not(g)  f = Cast<to=1>(n)  r = Mul(f, h)", 7),
    Written(
        "LSTM",
        "a = Transpose<perm=[2,0,1,3]>(h)  c = Reshape(a, s62m1)"
        "  r, hl, cl = LSTM<hidden_size=3>(c, lw, lr)",
        7,
    ),
    Written(
        "GRU",
        "a = Transpose<perm=[2,0,1,3]>(h)  c = Reshape(a, s62m1)"
        "  r, hl = GRU<hidden_size=3, linear_before_reset=1>(c, gw, gr)",
        7,
    ),
]

RNG = np.random.default_rng(3)


def _f(*shape: int, low: float = -1, high: float = 1) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


GIVEN = {
    "w": _f(4, 4, 3, 3), "w144": _f(144, 5), "w144t": _f(5, 144), "p5": _f(5),
    "p2": _f(2, low=0.5), "q2": _f(2), "p4": _f(4, low=0.5), "q4": _f(4), "p6": _f(6, low=0.5),
    "slope": _f(4, 1, 1), "b": _f(2, 4, 6, 6),
    "half": np.float32(0.5).reshape(()), "zero": np.float32(0).reshape(()),
    "tenth": np.float32(0.1).reshape(()), "t4": _f(4, low=0.01, high=0.1),
    "z8": np.uint8(128).reshape(()), "z84": np.arange(120, 124, dtype=np.uint8),
    "wi": RNG.integers(-127, 127, (4, 4, 3, 3)).astype(np.int8),
    "up": np.array([1, 1, 1.5, 2], np.float32), "down": np.array([1, 1, 0.5, 0.5], np.float32),
    "none": np.zeros(0, np.float32), "one": np.array(1, np.int64), "four": np.array(4, np.int64),
    "ends": np.array([0, 1], np.float32),
    "at": RNG.integers(0, 4, (2, 1, 6, 6)), "new": _f(2, 1, 6, 6),
    "atnd": np.array([[0, 1], [1, 3]]), "newnd": _f(2, 6, 6),
    "grid": _f(2, 5, 5, 2), "cos": _f(2, 6, 3), "sin": _f(2, 6, 3),
    "lw": _f(1, 12, 24), "lr": _f(1, 12, 3), "gw": _f(1, 9, 24), "gr": _f(1, 9, 3),
    "s1": [1], "s2": [2], "s4": [4], "sm1": [-1], "s23": [2, 3], "s13": [1, 3], "s20": [2, 0],
    "s1m4": [1, -4], "s9m1": [9, -1], "sm1m1": [-1, -1], "sm9m9": [-9, -9], "sm1m2": [-1, -2],
    "s00120001": [0, 0, 1, 2, 0, 0, 0, 1], "s1201": [1, 2, 0, 1], "s2498": [2, 4, 9, 8],
    "s20m13": [2, 0, -1, 3], "s24m13": [2, 4, -1, 3], "s1511": [1, 5, 1, 1],
    "s1221": [1, 2, 2, 1], "s62m1": [6, 2, -1],
}  # fmt: skip

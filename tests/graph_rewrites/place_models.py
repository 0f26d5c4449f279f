"""Small networks whose scores have places, or are none: segmentation, detector, embedder."""

from __future__ import annotations

import numpy as np
import onnx

from .samples import graph_of

SIZE = 12
CLASSES = 5


def weight(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def segmentation(last: str = "", out: str = "N, 5, 12, 12", classes: int = CLASSES):
    """Backbone of stride 2, a 1×1 classifier, bilinear upsampling; `last` makes "out" of "wide"."""
    return graph_of(
        f"""seg (float[N, 3, 12, 12] image) => (float[{out}] out) {{
            c1 = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(image, w1)
            r1 = Relu(c1)
            c2 = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]>(r1, w2)
            backbone = Relu(c2)
            small = Conv<kernel_shape=[1, 1]>(backbone, w3)
            wide = Resize<mode="linear">(small, , scales)
            {last or "out = Identity(wide)"}
        }}""",
        w1=weight(6, 3, 3, 3),
        w2=weight(8, 6, 3, 3),
        w3=weight(classes, 8, 1, 1),
        scales=np.array([1, 1, 2, 2], np.float32),
    )


def detector(order: str = "boxes first") -> onnx.ModelProto:
    """Two levels of class maps lined up as (N, 45, 5), and what sorts the boxes out behind them."""
    flip = order != "boxes first"
    return graph_of(
        f"""det (float[N, 3, 12, 12] image) => (float[N, {"5, 45" if flip else "45, 5"}] scores,
                                                int64[D, 3] kept) {{
            c1 = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]>(image, w1)
            trunk = Relu(c1)
            c2 = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]>(trunk, w2)
            deep = Relu(c2)
            h1 = Conv<kernel_shape=[1, 1]>(trunk, w3)
            h2 = Conv<kernel_shape=[1, 1]>(deep, w4)
            t1 = Transpose<perm=[0, 2, 3, 1]>(h1)
            t2 = Transpose<perm=[0, 2, 3, 1]>(h2)
            f1 = Reshape(t1, flat)
            f2 = Reshape(t2, flat)
            lined = Concat<axis=1>(f1, f2)
            logits = {"Transpose<perm=[0, 2, 1]>(lined)" if flip else "Mul(lined, half)"}
            scores = Sigmoid(logits)
            byclass = {"Identity(scores)" if flip else "Transpose<perm=[0, 2, 1]>(scores)"}
            boxes = ReduceMean<keepdims=0>(byclass, one)
            four = Unsqueeze(boxes, two)
            corners = Concat<axis=2>(four, four, four, four)
            kept = NonMaxSuppression(corners, byclass, most)
        }}""",
        w1=weight(6, 3, 3, 3),
        w2=weight(8, 6, 3, 3),
        w3=weight(CLASSES, 6, 1, 1),
        w4=weight(CLASSES, 8, 1, 1),
        flat=np.array([0, -1, CLASSES]),
        half=np.array(0.5, np.float32),
        one=np.array([1]),
        two=np.array([2]),
        most=np.array([3]),
    )


def embedder() -> onnx.ModelProto:
    return graph_of(
        """embed (float[N, 3, 12, 12] image) => (float[N, 6] vector) {
            c1 = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(image, w1)
            r1 = Relu(c1)
            pooled = GlobalAveragePool(r1)
            flat = Flatten(pooled)
            length = ReduceL2<keepdims=1>(flat, one)
            vector = Div(flat, length)
        }""",
        w1=weight(6, 3, 3, 3),
        one=np.array([1]),
    )


def _boxes_and_classes(out: str, tail: str, batch: str = "N") -> onnx.ModelProto:
    """One level: 4 coordinates (`raw`) and 5 classes (`logits`) of 36 boxes, and `tail`."""
    return graph_of(
        f"""det (float[{batch}, 3, 12, 12] image) => ({out}) {{
            c1 = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]>(image, w1)
            trunk = Relu(c1)
            both = Conv<kernel_shape=[1, 1]>(trunk, w2)
            lined = Reshape(both, flat)
            {tail}
        }}""",
        w1=weight(6, 3, 3, 3),
        w2=weight(4 + CLASSES, 6, 1, 1),
        flat=np.array([0, 4 + CLASSES, 36]),
        sizes=np.array([4, CLASSES]),
        eight=np.array(8, np.float32),
        first=np.array([0]),
        most=np.array([3]),
        index=np.array(2),
    )


def decoded(link: str = "Sigmoid", tail: str = "") -> onnx.ModelProto:
    """YOLOv8's form: decoded boxes over the probabilities, (N, 9, 36); `tail` makes another one."""
    return _boxes_and_classes(
        f"float[N, {4 + CLASSES}, 36] out",
        tail
        or f"""raw, logits = Split<axis=1>(lined, sizes)
            scaled = Mul(raw, eight)
            probable = {link}(logits)
            out = Concat<axis=1>(scaled, probable)""",
    )


def chosen_boxes(batch: str = "N") -> onnx.ModelProto:
    """torchvision's form: the boxes that are left, (M, 4), and their scores, (M)."""
    return _boxes_and_classes(
        "float[M, 4] boxes, float[M] scores",
        """raw, logits = Split<axis=1>(lined, sizes)
            probable = Sigmoid(logits)
            corners = Transpose<perm=[0, 2, 1]>(raw)
            kept = NonMaxSuppression(corners, probable, most)
            rows = Gather<axis=1>(kept, index)
            one = Squeeze(corners, first)
            boxes = Gather<axis=0>(one, rows)
            best = ReduceMax<axes=[1], keepdims=0>(probable)
            each = Squeeze(best, first)
            scores = Gather<axis=0>(each, rows)""",
        batch,
    )

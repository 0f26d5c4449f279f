"""Rewrite ONNX graphs so that they explain themselves.

    import onnx
    import graph_rewrites as gr

    model = onnx.load("resnet50.onnx")
    grads = gr.differentiate(model, wrt=["input"])              # an explicit backward graph
    guided = gr.replace_relu_rule(grads, "guided")              # another rule for its ReLUs
    print(gr.coverage(guided))                                  # which activation got which rule
    cam = gr.explanation_model(model, method="grad_cam")        # forward, backward and map
    onnx.save(cam, "resnet50_grad_cam.onnx")
    fast = gr.lower(cam, "cpu", {"input": (1, 3, 224, 224)})    # the same, faster on one provider

Every function takes a ModelProto and returns a new one; the caller's is never touched. What comes
out holds standard `ai.onnx` operators only and runs wherever ONNX runs.
"""

from __future__ import annotations

from graph_rewrites import testing
from graph_rewrites.canonical import canonicalize
from graph_rewrites.coverage import ActivationRule, Coverage, coverage
from graph_rewrites.errors import (
    GraphRewriteError,
    MissingRuleError,
    ModelError,
    NameClashError,
    NoGradientPathError,
    RuleError,
    SeveralTargetsError,
    UnknownShapeError,
    UnknownTensorError,
    UnsupportedControlFlowError,
    UnsupportedOperatorError,
)
from graph_rewrites.explained import OBJECTIVES, feature_maps, scores
from graph_rewrites.heads import METHODS, MapMethod, explanation_model
from graph_rewrites.layers import FeatureMap
from graph_rewrites.lowering import lower
from graph_rewrites.replace import replace_relu_rule
from graph_rewrites.reverse import differentiate
from graph_rewrites.rules import DEFAULT_RULES, Rule, RuleTable, vjp
from graph_rewrites.scores import Scores

__all__ = [
    "DEFAULT_RULES",
    "METHODS",
    "OBJECTIVES",
    "ActivationRule",
    "Coverage",
    "FeatureMap",
    "GraphRewriteError",
    "MapMethod",
    "MissingRuleError",
    "ModelError",
    "NameClashError",
    "NoGradientPathError",
    "Rule",
    "RuleError",
    "RuleTable",
    "Scores",
    "SeveralTargetsError",
    "UnknownShapeError",
    "UnknownTensorError",
    "UnsupportedControlFlowError",
    "UnsupportedOperatorError",
    "canonicalize",
    "coverage",
    "differentiate",
    "explanation_model",
    "feature_maps",
    "lower",
    "replace_relu_rule",
    "scores",
    "testing",
    "vjp",
]

"""Guided backpropagation: the gradient, without negative signal at any ReLU."""

from analyzer.methods.method import Method

GUIDED_BACKPROP = Method(
    name="guided_backprop",
    title="Guided backpropagation",
    summary="Fine detail that supports the score: the gradient, kept positive at every ReLU.",
    citation=(
        "Springenberg, Dosovitskiy, Brox, Riedmiller 2015, Striving for Simplicity, arXiv:1412.6806"
    ),
    signed=True,
    needs_layer=False,
    relu="guided",
    notes=(
        "g where x > 0 and g > 0, else 0, at ReLUs",
        "sharp, but weakly class-specific: read it together with Grad-CAM",
    ),
)

"""Gradient: the signed input gradient."""

from analyzer.methods.method import Method

GRADIENT = Method(
    name="gradient",
    title="Gradient",
    summary="In which direction each pixel and channel would raise the score: the input gradient.",
    citation=(
        "Simonyan, Vedaldi, Zisserman 2013, Deep Inside Convolutional Networks, arXiv:1312.6034"
    ),
    signed=True,
    needs_layer=False,
    relu="gradient",
    notes=("the gradient as it is, per channel of the model's input",),
)

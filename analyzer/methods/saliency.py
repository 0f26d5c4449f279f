"""Saliency: the size of the input gradient."""

from analyzer.methods.method import Method

SALIENCY = Method(
    name="saliency",
    title="Saliency",
    summary="How strongly the score reacts to each pixel: its channels' largest gradient.",
    citation=(
        "Simonyan, Vedaldi, Zisserman 2013, Deep Inside Convolutional Networks, arXiv:1312.6034"
    ),
    signed=False,
    needs_layer=False,
    relu="gradient",
    notes=("maximum over channels of the absolute gradient",),
)

"""Deconvnet: the backward signal rectified at every ReLU."""

from analyzer.methods.method import Method

DECONVNET = Method(
    name="deconvnet",
    title="Deconvnet",
    summary="What in the picture supports the score if every ReLU passes only positive signal.",
    citation=(
        "Zeiler, Fergus 2014, Visualizing and Understanding Convolutional Networks, "
        "doi:10.1007/978-3-319-10590-1_53"
    ),
    signed=True,
    needs_layer=False,
    relu="deconvnet",
    notes=(
        "max(g, 0) at ReLUs, whatever the forward activation was",
        "a max-pool returns the signal to its first maximum in row-major order",
    ),
)

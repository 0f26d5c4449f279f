"""Grad-CAM: a layer's channels weighted by their mean gradient."""

from analyzer.methods.method import Method

GRAD_CAM = Method(
    name="grad_cam",
    title="Grad-CAM",
    summary="Where the score comes from, on the grid of a late layer: its channels, weighted.",
    citation=(
        "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017, Grad-CAM, doi:10.1109/ICCV.2017.74"
    ),
    signed=False,
    needs_layer=True,
    relu="gradient",
    notes=(
        "weights are the gradient's mean over positions; ReLU of the weighted sum, not normalised",
        "upsampled bilinearly with half-pixel centres from the raw map",
    ),
)

"""Guided Grad-CAM: guided backpropagation where Grad-CAM looks."""

from analyzer.methods.method import Method

GUIDED_GRAD_CAM = Method(
    name="guided_grad_cam",
    title="Guided Grad-CAM",
    summary="Fine detail of the explained class: guided backpropagation times Grad-CAM.",
    citation=(
        "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017, Grad-CAM, doi:10.1109/ICCV.2017.74"
    ),
    signed=True,
    needs_layer=True,
    relu="guided",
    notes=(
        "guided gradient times the upsampled raw Grad-CAM; neither is normalised first",
        "the Grad-CAM inside uses the true gradient",
    ),
)

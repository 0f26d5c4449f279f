"""The default layer of transformers as timm builds them, exported by PyTorch, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from graph_rewrites.canonical import open_canonical
from graph_rewrites.layers import FeatureMap, find_feature_maps

# Name of the model, what makes it small; path, shape and tokens of its default layer.
FAMILIES: dict[str, tuple[dict[str, object], str, tuple[int, ...], tuple[int, int, int] | None]] = {
    "vit_tiny_patch16_224": ({"depth": 2}, "blocks.1.norm1", (197, 192), (14, 14, 1)),
    "deit_tiny_distilled_patch16_224": ({"depth": 2}, "blocks.1.norm1", (198, 192), (14, 14, 2)),
    "vit_small_patch14_reg4_dinov2": (
        {"depth": 2, "img_size": 70},
        "blocks.1.norm1",
        (30, 384),
        (5, 5, 5),
    ),
    "beit_base_patch16_224": ({"depth": 2, "embed_dim": 192}, "blocks.1", (197, 192), (14, 14, 1)),
    "cait_xxs24_224": ({"depth": 2}, "blocks_token_only.1.norm1", (197, 192), (14, 14, 1)),
    "xcit_nano_12_p8_224": ({"depth": 2}, "cls_attn_blocks.1.norm1", (785, 128), (28, 28, 1)),
    "mixer_s16_224": ({}, "norm", (196, 512), (14, 14, 0)),
    "gmlp_ti16_224": ({}, "norm", (196, 128), (14, 14, 0)),
    "swin_tiny_patch4_window7_224": ({"depths": (2, 1, 1, 1)}, "norm", (7, 7, 768), None),
    "pit_ti_224": ({"depth": (1, 1, 2)}, "transformers.2.blocks.1.norm1", (50, 256), (7, 7, 1)),
    "pvt_v2_b0": ({"depths": (1, 1, 1, 1)}, "stages.3.norm", (49, 256), (7, 7, 0)),
    "levit_128s": ({}, "stages.2.blocks.3", (16, 384), (4, 4, 0)),
    "efficientformer_l1": ({}, "norm", (49, 448), (7, 7, 0)),
    "mobilevitv2_050": ({}, "stages.4.1.conv_proj.bn", (256, 8, 8), None),
}


# The older exporter writes size arithmetic in front of the class token.
TORCHSCRIPT = ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")


@pytest.mark.oracles
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exporter"),
    [(name, "dynamo") for name in FAMILIES] + [(name, "torchscript") for name in TORCHSCRIPT],
)
def test_default(name: str, exporter: Literal["dynamo", "torchscript"], tmp_path: Path) -> None:
    options, path, shape, tokens = FAMILIES[name]
    found = _default(name, options, exporter, tmp_path)
    assert (found.path, found.shape[1:], found.tokens) == (path, shape, tokens)


def _default(
    name: str,
    options: dict[str, object],
    exporter: Literal["dynamo", "torchscript"],
    folder: Path,
) -> FeatureMap:
    from tests.oracles.torch_export import export
    from tests.oracles.torchvision_door import import_torchvision

    import_torchvision()
    import timm

    net = timm.create_model(name, exportable=True, **options).eval()
    size = int(options.get("img_size", net.default_cfg["input_size"][1]))  # type: ignore[call-overload]
    opened = open_canonical(export(net, folder / "net.onnx", size, exporter))
    (found,) = [m for m in find_feature_maps(opened) if m.default]
    return found

"""`onnx-analyzer demo`: the main job on the model and the picture that the package carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options
from analyzer.cli.output_paths import folder_must_be_writable
from analyzer.cli.terminal import printable, put, put_json, say_device

if TYPE_CHECKING:
    from analyzer.session import Device

SCHEMA_VERSION = 1
METHODS_SHOWN = ("grad_cam", "guided_grad_cam")
CLASSES_SHOWN = 2


@click.command("demo", short_help="Explain the embedded picture.")
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default=Path("onnx-analyzer-demo"),
    show_default=True,
    help="The folder to write into.",
)
@options.device
@options.output_format("text", "json")
@options.debug
def command(output: Path, device: Device, form: str) -> None:
    """Explain one embedded picture, for two of the things in it, with the embedded model.

    Grad-CAM says where the model looked for each class, guided Grad-CAM which pixels there spoke
    for it. Nothing is downloaded.
    """
    import analyzer
    from analyzer.catalog import demo_image, demo_model

    folder_must_be_writable(output)
    loaded = analyzer.load(demo_model(), device=device)
    say_device(device, loaded.device_reason)
    image = demo_image()
    predicted = loaded.predict(image)
    (ranked,) = predicted.top(CLASSES_SHOWN)
    targets = [guess.index for guess in ranked]
    explained = loaded.explain(image, method=METHODS_SHOWN, target=targets)
    assert isinstance(explained, dict)  # several methods were asked for
    files = [file for explanation in explained.values() for file in explanation.save(output)]
    if form == "json":
        put_json(
            {
                "schema_version": SCHEMA_VERSION,
                "folder": str(output.resolve()),
                "provider": loaded.provider,
                "provider_reason": loaded.device_reason,
                "targets": [{"index": guess.index, "label": guess.label} for guess in ranked],
                "files": [str(file) for file in files],
            },
            indent=2,
        )
        return
    unit = ".0%" if predicted.kind == "probability" else ".3g"
    classes = " and ".join(f"{guess.label} ({guess.value:{unit}})" for guess in ranked)
    put(f"{loaded.name} sees in {image.name}: {printable(classes)}")
    put(f"Where it looked for each, and at what, is in {printable(output.resolve())}:")
    for file in files:
        put(f"  {printable(file.name)}")

"""`onnx-analyzer compile MODEL`: the explanation model as a file."""

from __future__ import annotations

from pathlib import Path

import click

from analyzer.cli import options
from analyzer.cli.output_paths import file_must_be_writable, must_not_replace
from analyzer.cli.terminal import printable, put, put_json

SCHEMA_VERSION = 1
OBJECTIVES = ("class", "mask", "box", "similarity")


@click.command("compile", short_help="Write the explanation model.")
@options.model
@options.methods
@options.layer
@click.option(
    "--targets",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Targets explained per picture in one run.",
)
@options.explained
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    help="The number whose gradient is taken: the score of a class, summed over a mask, or in a "
    "box, or the similarity to another embedding; default: what the scores offer.",
)
@options.other_activations
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default=Path("explain.onnx"),
    show_default=True,
    help="The file to write.",
)
@options.output_format("text", "json")
@options.debug
def command(
    model: Path,
    methods: tuple[str, ...],
    layer: str | None,
    targets: int,
    explained: str | None,
    objective: str | None,
    other_activations: str,
    output: Path,
    form: str,
) -> None:
    """Write the explanation model of MODEL: its forward graph, the backward graph and the map.

    It takes the original inputs and `target` (the class, -1 for the arg-max), where asked for also
    `mask` or `box`, or `reference` (an embedding) instead. It runs in any ONNX runtime: nothing of
    this package is needed there.
    """
    import analyzer
    from analyzer.files import weights_beside, write_model

    file_must_be_writable(output)
    loaded = analyzer.load(model)
    must_not_replace((output, weights_beside(output)), loaded.files)
    compiled = loaded.compile(
        method=methods[0] if len(methods) == 1 else methods,
        layer=layer,
        targets=targets,
        other_activations=other_activations,
        output=explained,
        objective=objective,
    )
    size = write_model(output, compiled)
    inputs = [value.name for value in compiled.graph.input]
    outputs = [value.name for value in compiled.graph.output]
    if form == "json":
        put_json(
            {
                "schema_version": SCHEMA_VERSION,
                "model": str(model),
                "file": str(output),
                "bytes": size,
                "inputs": inputs,
                "outputs": outputs,
            },
            indent=2,
        )
        return
    put(f"{printable(output)}  {size:,} bytes")
    put(f"  inputs   {printable(', '.join(inputs))}")
    put(f"  outputs  {printable(', '.join(outputs))}")

"""The options that several verbs share, declared once; choices come from the package's tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from analyzer.cli.failures import Run
from analyzer.methods import METHODS

F = TypeVar("F", bound=Callable[..., Any])

DEVICES = ("cpu", "cuda", "auto")
PRECISIONS = ("float32", "tf32", "float16")
OTHER_ACTIVATIONS = ("gradient", "positive", "strict")
PATH = click.Path(path_type=Path)


def _remember_debug(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    run = ctx.find_object(Run)
    if run is not None and asked:
        run.debug = True


debug = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_debug,
    help="Show the traceback of an error.",
)


profile = click.option(
    "--profile",
    is_flag=True,
    help="Say where the time goes, and which operators are off the fast path.",
)


def output_format(*formats: str) -> Callable[[F], F]:
    """`--format`: the form of what goes to stdout, the first being the default."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Form of the data on stdout.",
    )


model = click.argument("model", type=PATH)
preprocess = click.option(
    "--preprocess",
    metavar="NAME|FILE",
    help="A preset (imagenet, caffe, tf, raw), a model of the catalogue, or a TOML file; "
    "default: the TOML file beside the model.",
)
labels = click.option(
    "--labels",
    metavar="NAME|FILE",
    help="Class names: a model of the catalogue, or a text file with one name a line.",
)
device = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="cuda is an error where it does not load; auto says what it took.",
)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Of products on cuda: tf32 and float16 are meant for speed, right to about three digits.",
)
layer = click.option(
    "--layer",
    help="Feature map of the CAM methods: its path, tensor or index, as 'inspect' lists them; "
    "default: the last before pooling.",
)
explained = click.option(
    "--of",
    "explained",
    metavar="NAME",
    help="What is explained: an output, a tensor inside the network, or a layer path, as 'inspect' "
    "lists them; default: the class scores.",
)
other_activations = click.option(
    "--other-activations",
    type=click.Choice(OTHER_ACTIVATIONS),
    default="gradient",
    show_default=True,
    help="How deconvnet and guided maps treat activations that are no ReLU.",
)
methods = click.option(
    "-m",
    "--method",
    "methods",
    type=click.Choice(list(METHODS)),
    multiple=True,
    default=("grad_cam",),
    show_default=True,
    help="Give it several times for several maps from one forward run.",
)

"""What the analyzer knows about a published method."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One published explanation method.

    Attributes:
        name: The name in the API, on the command line and in `map/<name>`.
        title: The name people know.
        summary: What it shows, in one sentence.
        citation: Authors, year, title, where to find it.
        signed: The map keeps sign and channels, (N, C, H, W); else it is (N, H, W), never negative.
        needs_layer: The map depends on a layer.
        relu: The rule that the backward sweep applies to ReLUs.
        notes: Conventions chosen where implementations differ.
    """

    name: str
    title: str
    summary: str
    citation: str
    signed: bool
    needs_layer: bool
    relu: str
    notes: tuple[str, ...] = ()

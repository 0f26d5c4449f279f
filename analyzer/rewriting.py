"""The boundary to graph_rewrites: its errors become the analyzer's, with an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

from analyzer.errors import ModelRejectedError, UsageError
from graph_rewrites.errors import GraphRewriteError, UnknownTensorError


@contextmanager
def rewriting(name: str) -> Iterator[None]:
    """Name the model in whatever a rewrite raises.

    Raises:
        UsageError: A layer that the model does not have.
        ModelRejectedError: Everything else that a rewrite refuses.
    """
    try:
        yield
    except UnknownTensorError as error:
        raise UsageError(f"{name}: {error}") from error
    except GraphRewriteError as error:
        raise ModelRejectedError(f"{name}: {error}") from error

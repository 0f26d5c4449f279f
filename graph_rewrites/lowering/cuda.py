"""The patterns for the runtime's CUDA provider, in the order in which they are applied.

Few, since cuDNN's transposed convolution is the backward of its convolution, and comparisons cost
no change of layout there. No node of the portable graph needs the CPU: it is of opset 18 to 21,
where every operator that the rules emit has a CUDA kernel.
"""

from __future__ import annotations

from graph_rewrites.lowering.factors import factor_before_mask, factor_in_weight
from graph_rewrites.lowering.pattern import Pattern
from graph_rewrites.lowering.seeds import chosen_row

CUDA: tuple[Pattern, ...] = (chosen_row, factor_before_mask, factor_in_weight)

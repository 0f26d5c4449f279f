"""The patterns for the runtime's CPU provider, in the order in which they are applied."""

from __future__ import annotations

from graph_rewrites.lowering.activations import sigmoid_complement, silu_slope
from graph_rewrites.lowering.blocked import entry, global_pool, repeated_pixel
from graph_rewrites.lowering.convolution import (
    cropped_convolution,
    flipped_convolution,
    spread_depthwise_convolution,
)
from graph_rewrites.lowering.factors import factor_before_mask, factor_in_weight
from graph_rewrites.lowering.means import mean_in_weight, mean_of_unpooled
from graph_rewrites.lowering.pattern import Pattern
from graph_rewrites.lowering.pooling import mask_before_unpooling, unpooling
from graph_rewrites.lowering.quantization import float_weight
from graph_rewrites.lowering.rectification import step_mask
from graph_rewrites.lowering.seeds import chosen_row

CPU: tuple[Pattern, ...] = (
    float_weight,
    chosen_row,
    factor_before_mask,
    factor_in_weight,
    mean_of_unpooled,
    mean_in_weight,
    mask_before_unpooling,
    unpooling,
    cropped_convolution,
    flipped_convolution,
    spread_depthwise_convolution,
    repeated_pixel,
    global_pool,
    silu_slope,
    sigmoid_complement,
    step_mask,
    entry,
)

"""Until the networks follow the contract."""

import contextlib


def adapt(network):
    if hasattr(network, "for_export"):
        return network
    values = dict(
        output_stride=8 if hasattr(network, "coarse_logits") else None,
        align_corners=getattr(network, "coarse_align_corners", False),
        needs_fixed_size=getattr(network, "needs_fixed_size", False),
        near_ties=getattr(network, "near_ties", False),
        temporal_window=getattr(network, "temporal_window", 1),
        for_export=lambda: network,
    )
    for key, value in values.items():
        object.__setattr__(network, key, value)
    return network


def folding(network):
    return network.folded() if hasattr(network, "folded") else contextlib.nullcontext()

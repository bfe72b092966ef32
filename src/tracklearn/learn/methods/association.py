"""The association that methods label tracklets by: its settings, and the clusters it finds.

Source: Teng et al., arXiv 2204.00891 (TMC), section 3.3; METHODS 2.2, 2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from tracklearn.core import cluster
from tracklearn.core.jaccard import Mode
from tracklearn.core.labels import one_track
from tracklearn.core.moments import moments
from tracklearn.learn.method import Assignment
from tracklearn.learn.methods import isolation
from tracklearn.learn.settings import Count
from tracklearn.types import Array, PseudoLabels, Tracklets


class Config(isolation.Config):
    """Settings of isolation and association, which a method's own settings add to."""

    k1: Count = Field(default=30, description="Neighbours in the Jaccard distance [code TMC; 20 in MMT].")
    k2: Count = Field(default=6, description="Neighbours averaged in the Jaccard distance [code MMT].")
    jaccard: Mode = Field(
        default="tracklearn",
        description="Form of the Jaccard distance: this project's, or as MMT's or SpCL's code has it "
        "[chosen; METHODS 2.2].",
    )
    rho: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1.6e-3,
        description="Share of smallest distances whose mean is eps [paper 3.3 data-dependent; code MMT].",
    )
    eps_share: Annotated[float, Field(gt=0, le=2)] = Field(
        default=1.0,
        description="What the eps of rho is multiplied by; less makes clusters purer and leaves more out "
        "[chosen].",
    )
    min_samples: Count = Field(default=4, description="Density of association [code MMT].")
    neighbors: Literal["exact", "int8", "ann"] = Field(
        default="exact",
        description="How neighbours are found: exact; int8, the same result from 8-bit products; ann, "
        "approximate from 50,000 tracklets on, said in the log [chosen].",
    )
    fit_to_size: bool = Field(
        default=True,
        description="Fit k1, k2, min_samples and rho to the number of tracklets where it is small [chosen].",
    )
    time_tells: bool = Field(
        default=False,
        description="Keep tracklets that one camera sees at the same moment, apart, out of one cluster, draw "
        "them into one batch, and count the parts of one track once in a cluster's density [chosen; METHODS "
        "6a].",
    )


def associate(
    config: Config,
    features: Array | Tensor,
    tracklets: Tracklets,
    memory: Mapping[str, Array],
    *,
    eps: float | None = None,
) -> Assignment:
    """Clusters of the tracklets.

    Args:
        config: how.
        features: (t, d) unit rows.
        tracklets: what they are of.
        memory: what the round before remembered.
        eps: the radius; None takes it from the first round's distances, and it then stays. What stays is eps
            before any rescue: a round that needs one starts its own from there.
    """
    first = "eps" not in memory
    apart = moments(tracklets).pair if config.time_tells else None
    found = cluster.associate(
        features,
        k1=config.k1,
        k2=config.k2,
        rho=config.rho,
        min_samples=config.min_samples,
        eps=eps if first else float(memory["eps"].item()),
        eps_share=config.eps_share,
        mode=config.jaccard,
        neighbors=config.neighbors,
        fit_to_size=config.fit_to_size,
        apart=apart,
        track=tracklets.source if config.time_tells else None,
    )
    record = {"one_track": float(one_track(found.label, tracklets.source))}
    if apart is not None:
        record |= {"apart": float(len(apart)), "splits": float(found.n_splits)}
    # What the number of tracklets changed is the same every epoch: once is enough.
    warnings = found.adapted.warnings if first else ()
    return Assignment(
        labels=PseudoLabels.of(found.label),
        eps=found.eps,
        memory={"eps": np.array(found.start_eps)},
        diagnosis=(*warnings, *found.diagnosis),
        record=record,
    )

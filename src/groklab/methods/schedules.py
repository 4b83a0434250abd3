"""Learning-rate schedules, as factors on the optimiser's learning rate.

Written as array expressions, so that their numbers may be traced. The warm-up is that of the field's code (Power,
Nanda, Grokfast): factor min(count / warmup_steps, 1), which is 0 at the first update, so that update moves nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import Field

from groklab.recipe import Schedule


class Constant(Schedule):
    """Linear warm-up over `warmup_steps` updates, then constant."""

    kind: Literal["constant"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 10

    def factor(self, count: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.minimum(count / max(self.warmup_steps, 1), 1.0) if self.warmup_steps else jnp.ones(())

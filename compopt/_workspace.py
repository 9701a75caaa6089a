"""Work vectors that are kept from step to step."""

from collections.abc import Hashable

import torch
from torch import Tensor

from compopt._flat import FlatLayout


class Workspace:
    """Vectors by name, allocated once and handed out again.

    On the CPU, a large vector that is asked for anew at each step costs more than a pass over it.
    """

    def __init__(self) -> None:
        self.vectors: dict[tuple[Hashable, ...], Tensor] = {}

    def vector(self, layout: FlatLayout, *name: Hashable) -> Tensor:
        """Return the vector [layout.numel] called ``name``, of any content.

        One that does not have the size, dtype and device of ``layout`` is replaced.
        """
        wanted = (layout.numel, layout.dtype, layout.device)
        vector = self.vectors.get(name)
        if vector is None or (vector.numel(), vector.dtype, vector.device) != wanted:
            vector = torch.empty(layout.numel, dtype=layout.dtype, device=layout.device)
            self.vectors[name] = vector
        return vector

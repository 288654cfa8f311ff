"""The land model seam: state goes in and comes out, nothing is kept on the object."""

from __future__ import annotations

from typing import Protocol

import xarray as xr


class LandModel(Protocol):
    """A land-surface model over any set of cells."""

    @property
    def name(self) -> str:
        """What it is called; one word."""
        ...

    @property
    def version(self) -> str:
        """Changes where its results do."""
        ...

    def run(self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        """The state after the last forcing step, and the diagnostics of every step.

        state        instantaneous, dims (layer, cell) and (cell), as `twin.state` describes; not changed
        forcing      CF names of `twin.variables`, dims (time, cell), constant step, values are means over the step
                     that starts at `time`; not changed
        parameters   dims (layer, cell) or (cell), as `twin.parameters` describes; not changed
        returns      (end state, diagnostics): diagnostics hold the states at the END of each step and the mean fluxes
                     of the step, dims (time, [layer,] cell), labelled by the start of the step

        Restartable: two halves equal the whole bit for bit, and any subset or order of cells gives the same bits.
        Raises UnitsError, VariableError or RangeError before the first step for forcing it cannot use.
        """
        ...

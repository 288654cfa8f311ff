"""Parameters of the land models: of the soil from its texture, of the surface from what covers it."""

from twin.parameters.ancillaries import from_hwsd, from_soilgrids
from twin.parameters.background import assemble
from twin.parameters.cover import CROSSWALK, c4_share, from_land_cover
from twin.parameters.soil import (
    BOUNDS,
    BROOKS_COREY,
    COSBY,
    COSBY_UM,
    CRITICAL,
    VAN_GENUCHTEN,
    VARIANTS,
    WILTING,
    Pedotransfer,
    Variant,
    clipping,
    from_texture,
    hydraulics,
    root_fractions,
    soil_from_texture,
    water_content,
)
from twin.parameters.tiles import TILES, VEGETATED, canopy_heat_capacity, tile_parameters

__all__ = [
    "BOUNDS",
    "BROOKS_COREY",
    "COSBY",
    "COSBY_UM",
    "CRITICAL",
    "CROSSWALK",
    "TILES",
    "VAN_GENUCHTEN",
    "VARIANTS",
    "VEGETATED",
    "WILTING",
    "Pedotransfer",
    "Variant",
    "assemble",
    "c4_share",
    "canopy_heat_capacity",
    "clipping",
    "from_hwsd",
    "from_land_cover",
    "from_soilgrids",
    "from_texture",
    "hydraulics",
    "root_fractions",
    "soil_from_texture",
    "tile_parameters",
    "water_content",
]

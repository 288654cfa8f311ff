"""The catalogue: what the twin publishes, how it is served and searched, and what is new in catalogues of others."""

import logging

# At import it advises to set a title by environment variable; ours is set in `server`.
logging.getLogger("stac_fastapi.types.config").setLevel(logging.ERROR)

"""The real JULES behind the protocol of `twin.model`: the user brings the executable and a namelist directory.

    Jules(executable, namelists)    a LandModel
    doctor(executable, namelists)   what is missing and how to get it

Names and units of JULES are known only in this package. It starts processes and writes files, which nothing else in
`twin` does; what it promises stays that of every land model: state in, state out, nothing kept on the object.

Refs: JULES user guide, jules-lsm.github.io; Best et al. (2011), Geosci. Model Dev. 4, 677; Clark et al. (2011),
Geosci. Model Dev. 4, 701.
"""

from twin.jules.adapter import Jules
from twin.jules.doctor import doctor

__all__ = ["Jules", "doctor"]

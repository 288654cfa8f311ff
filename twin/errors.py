"""What can go wrong, drawn once; the class says whether trying again helps.

    TwinError
    ├── Transient            try again: a slow network, a busy store
    │   └── Conflict         another writer committed first
    ├── Rejected             the input is wrong: it is set aside with its reason
    │   ├── AccessError      an href outside the allowed places
    │   ├── AssetError       missing, truncated or unreadable bytes
    │   │   └── ChecksumError
    │   ├── VariableError    the expected variable is not there
    │   ├── UnitsError       it is, in other units
    │   ├── RangeError       it is, with impossible values
    │   ├── PlaceError       it lies outside the region
    │   └── TimeError        it lies in the future, or has no usable time
    └── SettingsError        the operator must change something

Every message reads `what: expected …, found … (where)`.
"""

from __future__ import annotations


class TwinError(Exception):
    """A problem with `what`: what was expected, what was found, and where (item, file or setting)."""

    def __init__(self, what: str, *, expected: object = "", found: object = "", where: str = "") -> None:
        self.what, self.expected, self.found, self.where = what, str(expected), str(found), where
        super().__init__(what, self.expected, self.found, where)

    def __str__(self) -> str:
        sides = [f"expected {self.expected}"] * bool(self.expected) + [f"found {self.found}"] * bool(self.found)
        text = f"{self.what}: {', '.join(sides)}" if sides else self.what
        return f"{text} ({self.where})" if self.where else text

    def __reduce__(self):
        return _rebuild, (type(self), self.what, self.expected, self.found, self.where)


def _rebuild(kind: type[TwinError], what: str, expected: str, found: str, where: str) -> TwinError:
    return kind(what, expected=expected, found=found, where=where)


class Transient(TwinError):
    """Trying again may help."""


class Conflict(Transient):
    """Another writer committed first; build the change again on the new state."""


class Rejected(TwinError):
    """The input is wrong; set it aside with this reason and go on with the rest."""


class AccessError(Rejected):
    """An href points outside the allowed schemes, hosts or folders."""


class AssetError(Rejected):
    """The bytes are missing, truncated or unreadable."""


class ChecksumError(AssetError):
    """The bytes are not the ones the item describes."""


class VariableError(Rejected):
    """The asset does not hold the variable its product promises."""


class UnitsError(Rejected):
    """The variable is there in units that cannot be converted to ours."""


class RangeError(Rejected):
    """The values are impossible, or none is finite."""


class PlaceError(Rejected):
    """The asset covers no cell of the region."""


class TimeError(Rejected):
    """The time lies in the future, or there is none."""


class SettingsError(TwinError):
    """A setting, file or folder the operator chose does not work."""

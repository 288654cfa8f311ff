"""Namelists as text, versions of JULES, and what is refused before anything runs."""

from __future__ import annotations

import re
import runpy
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.errors import SettingsError
from twin.jules import Jules, doctor, namelist, versions

TESTS = Path(__file__).parents[1]
stand_in = runpy.run_path(str(TESTS / "stand_in_jules.py"))
install, USER = stand_in["install"], stand_in["USER"]

TEXT = """The user's own words & a stray /, before the group.
! &commented key = 1 /
&First a = 1, b = 'it''s / here', c(2) = 2.5d0 ! not / the end
  list = 2*'x' "y!" T .FALSE., d = 3*0.1
/
between
$second
  A = -1e3   b=''  $end
&first a = 9 /
"""


def test_what_fortran_would_read():
    assert namelist.groups(TEXT) == ["first", "second", "first"]
    first = namelist.values(TEXT.rpartition("&first")[0], "first")
    assert first["a"] == [1] and first["b"] == ["it's / here"] and first["c"] == [None, 2.5]
    assert first["list"] == ["x", "x", "y!", True, False] and first["d"] == [0.1] * 3
    assert namelist.values(TEXT, "second") == {"a": [-1000.0], "b": [""]}
    assert namelist.values(TEXT, "third") == {} and namelist.value(TEXT, "third", "a", 5) == 5


def test_only_what_is_asked_for_changes():
    edited = namelist.edit(TEXT, "first", {"a": 2, "new": ["u", "v"]}, drop=("c",))
    assert namelist.values(edited.rpartition("&first")[0], "first") == {
        **{"a": [2], "new": ["u", "v"], "b": ["it's / here"]},
        **{"list": ["x", "x", "y!", True, False], "d": [0.1] * 3},
    }
    before, after = TEXT.partition("&First")[0], TEXT.partition("\n/\n")[2]
    assert edited.startswith(before) and edited.endswith(after)
    assert "b = 'it''s / here'" in edited and "d = 3*0.1" in edited
    assert namelist.edit(TEXT, "second", {"k": True}, drop=None).endswith("$end\n&first a = 9 /\n")
    assert namelist.groups(namelist.remove(TEXT, "first")) == ["second"]
    assert namelist.values(namelist.written("g", {"x": 0.1}), "g") == {"x": [0.1]}


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12)
constants = st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | words
rows = st.dictionaries(names, st.lists(constants, min_size=1, max_size=4), max_size=5)


@given(rows, rows)
def test_what_is_written_is_read_and_the_rest_stays(old, new):
    """Any constants, with quotes, slashes, ampersands and exclamation marks inside strings."""
    text = namelist.edit(namelist.written("g", old), "g", new)
    found = namelist.values(text, "g")
    expected = {**old, **new}
    assert set(found) == set(expected)
    for key, values in expected.items():
        assert found[key] == values and list(map(type, found[key])) == list(map(type, values))


@pytest.mark.parametrize(
    ("text", "words"), [("&a b = 1", "a closing '/', found the end"), ("&a b = '/\n", "a closing quote")]
)
def test_a_group_that_does_not_end(text, words):
    with pytest.raises(SettingsError, match=f"namelist group &a: expected {words}"):
        namelist.groups(text)


def test_a_group_that_is_not_there():
    with pytest.raises(SettingsError, match="namelist group: expected &third, found first, second, first"):
        namelist.edit(TEXT, "third", {"a": 1})


# --- versions ---------------------------------------------------------------------------------------------------------
def made(tmp_path: Path, **changed) -> tuple[str, str]:
    return install(tmp_path / "set-up", **changed)


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("5.0", "5.0"),
        ("5.2", "5.1 to 5.2"),
        ("5.3", "5.3"),
        ("5.9", "5.4 to 5.9"),
        ("6.2", "6.0 to 8.0"),
        ("7.2", "7.2 to 8.0"),
    ],
)
def test_a_version_is_known_by_its_namelists(tmp_path, version, found):
    assert Jules(*made(tmp_path, version=version)).version == found


def test_a_banner_decides_and_the_user_over_it(tmp_path):
    executable, namelists = made(tmp_path, banner="This is JULES vn5.1 of the Met Office")
    assert Jules(executable, namelists).version == "5.1"
    assert Jules(executable, namelists, version="vn5.2").version == "5.2"


@pytest.mark.parametrize("say", [{"version": "4.9"}, {"banner": "JULES version 9.1"}])
def test_an_unknown_version_is_refused_with_those_known(tmp_path, say):
    executable, namelists = made(tmp_path, banner=say.pop("banner", ""))
    with pytest.raises(SettingsError, match=r"JULES version: expected one of 5\.0, .*7\.9, 8\.0, found (4\.9|9\.1)"):
        Jules(executable, namelists, **say)


def test_namelists_of_two_versions_are_of_none(tmp_path):
    both = made(tmp_path, version="5.2", jules_prnt_control="&jules_prnt_control /\n")
    with pytest.raises(SettingsError, match=r"expected those of one version, found jules_lsm_switch.nml, jules_prnt"):
        Jules(*both)


def test_every_known_version_has_one_form_of_each_group():
    forms = [tuple(versions.latlon(version, 2, 0.0, 0.0, "f")) for version in versions.KNOWN]
    assert [forms[0], *(b for a, b in pairwise(forms) if a != b)] == [
        ("file", "lat_name", "lon_name"),
        ("nvars", "var", "use_file", "file"),
        ("l_coord_latlon", "nvars", "var", "use_file", "file"),
    ]


# --- what is refused at the door --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("snow", None, None),
        ("jules_snow", None, "found no jules_snow.nml"),
        ("jules_rivers", "&jules_rivers l_rivers = T /\n", "l_rivers of jules_rivers.nml: expected False, as rivers"),
        ("jules_surface", "&jules_surface l_aggregate=.TRUE. /\n", "l_aggregate of jules_surface.nml: expected False"),
        ("timesteps", "&jules_time l_leap = F /\n", "l_leap of timesteps.nml: expected True, as the calendar"),
        ("drive", "&jules_drive l_perturb_driving = T /\n", "l_perturb_driving of drive.nml: expected False"),
        ("jules_surface_types", "&jules_surface_types npft=9, nnvg=4, soil=12 /\n", "npft of .*: expected 5, found 9"),
        ("jules_surface_types", "&jules_surface_types npft=5, nnvg=4 /\n", "soil of .*: expected 8, found None"),
        ("jules_soil", "&jules_soil dzsoil_io=4*0.5 /\n", r"dzsoil_io of jules_soil.nml: expected \(0.1, 0.25"),
    ],
)
def test_a_set_up_the_twin_cannot_use(tmp_path, file, text, words):
    set_up = made(tmp_path, **{file: text})
    if words is None:
        Jules(*set_up)
        return
    with pytest.raises(SettingsError, match=words):
        Jules(*set_up)


def test_programs_that_cannot_be_started(tmp_path):
    executable, namelists = made(tmp_path)
    bare = tmp_path / "bare"
    bare.write_bytes(b"\x7fELF" + bytes(60))
    gone = tmp_path / "gone"
    gone.write_text("#!/nowhere/python\n")
    cases = {
        tmp_path / "absent": "found nothing at .*absent .TWIN_MODEL__EXECUTABLE",
        tmp_path: "found a folder",
        bare: "found no permission to execute .* .chmod",
    }
    for path, words in cases.items():
        with pytest.raises(SettingsError, match=words):
            Jules(path, namelists)
    bare.chmod(0o755)
    gone.chmod(0o755)
    with pytest.raises(SettingsError, match=r"no program for this machine .another architecture"):
        Jules(bare, namelists)
    with pytest.raises(SettingsError, match=r"whose interpreter or loader is missing"):
        Jules(gone, namelists)
    for folder in (tmp_path / "none", Path(executable).parent):
        with pytest.raises(SettingsError, match=r"JULES namelists: expected a folder of \.nml files"):
            Jules(executable, folder)


def test_libraries_that_are_missing(tmp_path):
    program = tmp_path / "jules.exe"
    program.write_text("#!/bin/sh\necho 'x: error while loading shared libraries: libnetcdff.so.7: no' >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(SettingsError, match=r"expected its shared libraries .LD_LIBRARY_PATH.*libnetcdff\.so\.7"):
        Jules(program, made(tmp_path)[1])


def test_the_doctor_says_what_is_there_and_how_to_get_it(tmp_path):
    executable, namelists = made(tmp_path)
    good = doctor(executable, namelists)
    assert re.match(r"JULES: .*jules.exe starts", good[0]) and "version 5.1 to 5.2 can be used" in good[1]
    for lines in (doctor(), doctor(tmp_path / "absent", namelists)):
        text = "\n".join(lines)
        assert "JULES_access.html" in text and "TWIN_MODEL__EXECUTABLE" in text and "TWIN_MODEL__NAMELISTS" in text
    assert "found nothing at" in doctor(tmp_path / "absent", namelists)[0]

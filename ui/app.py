"""The portal's page: `python -m ui` runs it; each view is a function in `ui.views`."""

from __future__ import annotations

import streamlit as st

from ui import component, words
from ui.views import now

st.set_page_config(page_title=words.TITLE, layout="wide", initial_sidebar_state="collapsed")
st.html(component.STATIC / "portal.css")
now.page()

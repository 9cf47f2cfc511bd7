"""The script that Streamlit runs for each visitor and interaction."""

from __future__ import annotations

import sys

from cxr.app.page import run_page
from cxr.app.settings import AppSettings

run_page(AppSettings.from_text(sys.argv[1]))

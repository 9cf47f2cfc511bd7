"""What Streamlit runs for each visitor and interaction."""

from __future__ import annotations

import sys

from cxr.app.page import run
from cxr.app.settings import Settings

run(Settings.from_text(sys.argv[1]))

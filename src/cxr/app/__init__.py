"""The page: radiographs in, calibrated predictions out, in words that a clinician can read aloud (Streamlit).

:mod:`cxr.app.server` starts it. The other modules run in Streamlit's process, once per interaction of a visitor.
"""

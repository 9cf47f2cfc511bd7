"""The page: radiographs in, calibrated answers that a clinician can read out (Streamlit).

Only :mod:`cxr.app.server` starts it; the other modules run inside Streamlit's process, once per interaction of a visitor.
"""

"""The page: radiographs in, calibrated answers that a clinician can read out (Streamlit).

:mod:`cxr.app.server` starts it; the other modules run in Streamlit's process, once per interaction of a visitor.
"""

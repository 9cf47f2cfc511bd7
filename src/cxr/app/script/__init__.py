"""Streamlit's script alone in its folder, because Streamlit puts that folder first on Python's search path."""

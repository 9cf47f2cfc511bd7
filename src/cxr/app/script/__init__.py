"""Streamlit's script alone in its folder: Streamlit puts that folder before all others on Python's path."""

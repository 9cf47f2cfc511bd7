"""Radiographs in DICOM files, read as a viewer shows them."""

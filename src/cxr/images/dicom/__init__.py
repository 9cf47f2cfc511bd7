"""Decoding of radiographs in DICOM files."""

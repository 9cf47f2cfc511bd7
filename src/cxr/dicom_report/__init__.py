"""Answers of a model as DICOM files that stand beside the radiograph in an archive."""

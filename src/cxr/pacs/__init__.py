"""The DICOM node: it receives radiographs from a PACS, answers them, and sends the reports back."""

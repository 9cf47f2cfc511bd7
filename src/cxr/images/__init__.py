"""Images: decoding, DICOM, the sandbox for files of strangers, recipes and prepared arrays."""

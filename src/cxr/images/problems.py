"""Kinds of problem that an image file can have."""

from __future__ import annotations

TRAINING_PROBLEMS: dict[str, str] = {
    "symlink": "a symbolic link: links are reported and never followed",
    "special": "a folder, device, pipe or socket where an image file should be",
    "unreadable": "the file cannot be read (permission, or gone)",
    "empty": "the file has no bytes",
    "too_large": "too many bytes or pixels; decided before a pixel is decoded",
    "not_an_image": "the content is not a JPEG, PNG or DICOM image",
    "truncated": "the file ends before its end mark",
    "corrupt": "the content is damaged",
    "animated": "the file holds more than one image",
    "cmyk": "four ink channels: a print file, not a radiograph",
    "modality": "made by a device that takes no radiographs (CT, MR, ultrasound, ...)",
    "no_pixels": "a DICOM file without a picture: a report, a plan, a curve",
    "photometric": "a DICOM file in colour; radiographs are stored in grey",
    "raw": "the values of a detector before they are made a picture to look at",
    "not_frontal": "a side or oblique view; the model knows frontal ones (PA, AP)",
    "unsupported": "a way of storing pixels that is not read here; export the picture uncompressed",
    "misplaced": "the file lies in no class folder",
    "misnamed": "the name does not say which patient it is",
    "mislabelled": "the name says another label than the folder",
    "depth_16": "more than 8 bits per channel",
    "other_modality": "a DICOM file whose modality is not in the standard, but names radiography",
    "blank": "all pixels have one grey level",
    "too_small": "fewer pixels per side than the limit",
    "aspect": "longer and narrower than the limit",
    "wrong_suffix": "the ending of the name is of another format than the content",
    "colour": "coloured pixels; colour is dropped, every image is read as grey",
}
"""Kinds of problem that a file of training data can have, worst first, each with a sentence for people."""

PROBLEMS: dict[str, str] = TRAINING_PROBLEMS | {
    "too_slow": "reading it took longer than the limit",
    "unidentified": "a DICOM file that does not say which image of which study it is; no report can name it",
    "transfer": "the object store did not send the whole file; the same command reads it again",
}
"""All kinds of problem, including those of files sent for prediction. The page shows these sentences to visitors."""

SOFT_PROBLEMS: frozenset[str] = frozenset(
    {"depth_16", "other_modality", "blank", "too_small", "aspect", "wrong_suffix", "colour"}
)
"""Problems of images that can still be decoded. A policy may accept them."""

"""The page of an export: how to prepare an image, what goes in, what comes out, and how to check an installation."""

from __future__ import annotations

from collections.abc import Mapping

from cxr.export.agreement import MAX_DIFFERENCE, Agreement
from cxr.images.recipes import Recipe
from cxr.models.metadata import ModelMetadata

_PHANTOMS = "> Trained on phantoms: drawn images, not patients. Never for use on people.\n\n"
_PAGE = """# {model}, {name}

{banner}`model.onnx` takes prepared chest radiographs and returns the probability of pneumonia. {parts} are in the file:
prepare the image as below, and compare the answer with the threshold.

## What goes in

{inputs}
The axes are image, row from the top, column from the left, plane. Any number of images fits into one call. Grey levels
go from 0 (black) to 255 (white), and air is dark: invert MONOCHROME1. Do not scale them: the file does.{several}

Begin with the whole image in 8 bits of grey, one plane, at its full size. The functions are those of OpenCV,
in Python `import cv2` after `pip install opencv-python-headless`.

{recipes}
## What comes out

`probability`: float32, shape `(batch)`, the calibrated probability of {positive}, 0 to 1. The temperature in
`card.json` is already applied.

{labels}

The file answers for every image. `cxr serve` and `cxr predict` refuse images that are no chest radiograph; this file
does not, so check them before.

## Check the installation

`example.npz` holds a drawn image after the steps above, and the probability that the model itself computes for it,
{example:.6f}. `example.png` is that image before the steps. In this folder, install beside it what the comparison was
made with:

```sh
python3 -m venv ../environment
../environment/bin/pip install numpy onnxruntime=={runtime}
```

Save this program as `../check.py`, and run `../environment/bin/python ../check.py` here. It prints the probability:

```python
import numpy as np
import onnxruntime

network = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
example = np.load("example.npz")
inputs = {{value.name: example[value.name] for value in network.get_inputs()}}
(probability,) = network.run(["probability"], inputs)
print(probability)
assert abs(probability - example["probability"]).max() <= {limit}
```

## The comparison

ONNX Runtime and the model computed the probabilities of the {images:,} validation images of the training. The largest
difference was {difference:.2g} ({limit} is allowed); {changed} images changed sides of the threshold. `summary.json`
has these figures and the versions of the packages, `card.json` all facts about the model, and `digests.json` the
SHA-256 of every file.
"""


def write_readme(
    metadata: ModelMetadata,
    inputs: Mapping[str, Recipe],
    agreement: Agreement,
    *,
    name: str,
    example: float,
    runtime: str,
) -> str:
    """Write the page.

    Args:
        metadata: the calibrated metadata of the model.
        inputs: name of each input to the recipe of its images.
        agreement: the comparison with the model.
        name: name of the model in documents.
        example: probability of the example, 0 to 1.
        runtime: version of ONNX Runtime that the comparison was made with.

    Returns:
        Markdown.
    """
    recipes = "\n".join(f"**`{name}`**\n\n{_steps(recipe)}" for name, recipe in inputs.items())
    return _PAGE.format(
        model=metadata.model,
        name=name,
        banner=_PHANTOMS if metadata.dataset_kind == "phantom" else "",
        parts=_parts(metadata),
        inputs=_table(inputs),
        several=" All inputs hold the same images in the same order." if len(inputs) > 1 else "",
        recipes=recipes,
        positive=metadata.classes[1],
        labels=_labels(metadata),
        example=example,
        runtime=runtime,
        limit=MAX_DIFFERENCE,
        images=agreement.images,
        difference=agreement.largest_difference,
        changed=agreement.changed_labels or "no",
    )


def _parts(metadata: ModelMetadata) -> str:
    """What the file computes beside its networks."""
    cards = [member.card for member in metadata.weighted_members] or [metadata]
    mirrored = ["the mirror image"] if any(card.mirrored for card in cards) else []
    weights = [f"the weights of {len(cards)} networks"] if metadata.members else []
    return ", ".join(["Scaling", *mirrored, *weights]) + " and calibration"


def _table(inputs: Mapping[str, Recipe]) -> str:
    rows = [
        f"| `{name}` | uint8 | `(batch, {recipe.size}, {recipe.size}, {recipe.planes})` |"
        for name, recipe in inputs.items()
    ]
    return "\n".join(["| input | type | shape |", "|---|---|---|", *rows, ""])


def _steps(recipe: Recipe) -> str:
    """The operations of :func:`cxr.images.recipes.apply_recipe`, in its order, as a numbered list."""
    square = f"({recipe.size}, {recipe.size})"
    steps = []
    if recipe.fit == "crop":
        steps.append("Cut out the central square; of an odd rest, the larger part is cut off at the bottom or right.")
    if recipe.equalise:
        steps.append("`equalizeHist(image)`")
    if recipe.clahe_clip:
        tiles = f"({recipe.clahe_tiles}, {recipe.clahe_tiles})"
        steps.append(f"`createCLAHE(clipLimit={recipe.clahe_clip}, tileGridSize={tiles}).apply(image)`")
    if recipe.bilateral_diameter:
        colour, space = recipe.bilateral_sigma_colour / 3, recipe.bilateral_sigma_space
        steps.append(f"`bilateralFilter(image, {recipe.bilateral_diameter}, {colour!r}, {space})`")
    if recipe.morphology:
        kernel = f"np.ones(({recipe.morphology}, {recipe.morphology}), np.uint8)"
        steps += [f"`morphologyEx(image, {operation}, {kernel})`" for operation in ("MORPH_CLOSE", "MORPH_OPEN")]
    if recipe.fit == "pad":
        square = "(width, height)"
        steps.append(
            f"Width and height become `{recipe.size} - 2 * round({recipe.size} * (1 - side / longer_side) / 2)`, each "
            "from its own side."
        )
    steps.append(f"`resize(image, {square}, interpolation=INTER_AREA)`; `INTER_LINEAR` if a side grows.")
    if recipe.canny:
        steps.append(f"Second plane: `Canny(image, {recipe.canny_low}, {recipe.canny_high})`")
    if recipe.fit == "pad":
        steps.append(f"Put it into the middle of a black square of {recipe.size} pixels.")
    return "".join(f"{number}. {step}\n" for number, step in enumerate(steps, start=1))


def _labels(metadata: ModelMetadata) -> str:
    """How a probability becomes a label."""
    negative, positive = metadata.classes
    sets = metadata.prediction_sets
    if sets is None:
        return (
            f"The label is {positive} at {metadata.threshold!r} and above, else {negative} ({metadata.threshold_rule})."
        )
    return (
        f"{negative} fits at {sets.normal_at_most!r} and below, {positive} at {sets.pneumonia_at_least!r} and above. "
        "The label is the class that fits alone; if both fit or neither, it is UNCERTAIN."
    )

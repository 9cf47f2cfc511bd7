"""Preprocess: apply one recipe to every accepted image and keep the result as one memory-mapped array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cxr.steps.base import Reads, Step, Writes

RecipeName = Literal["s0_clahe_bilateral", "s1_resize", "s2_resize", "s3_equalise_morphology", "s4_resize"]


class Preprocess(Step):
    """Apply a recipe to every accepted image: decode to grey, filter, resize, store as uint8.

    Every parameter but the recipe's name and the number of workers replaces one value of the recipe; null
    keeps the source system's value.
    """

    name: ClassVar[str] = "preprocess"
    sections: ClassVar[tuple[str, ...]] = ("preprocess", "recipes.{recipe}", "transfer_recipes.{recipe}")
    without_effect: ClassVar[tuple[str, ...]] = ("preprocess",)

    data: Annotated[Path, Reads("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    manifest: Annotated[
        Path,
        Reads("Manifest"),
        Field(description="Folder of the manifest; its accepted images are prepared."),
    ] = Path("artifacts/manifest")
    prepared: Annotated[
        Path,
        Writes("Prepared"),
        Field(description="Folder of the array; artifacts/prepared/RECIPE if not given."),
    ] = Path("artifacts/prepared/s2_resize")

    recipe: Annotated[RecipeName, Field(description="Which recipe; each is one source system's.")] = "s2_resize"
    workers: Annotated[
        int | None,
        Field(ge=1, description="Threads; null for one per core. The result does not depend on it."),
    ] = None
    size: Annotated[int | None, Field(ge=8, le=2048, description="Side of the output in pixels.")] = None
    channels: Annotated[int | None, Field(ge=1, le=3, description="Channels of the network's input.")] = None
    equalise: Annotated[bool | None, Field(description="Equalise the histogram of the whole image.")] = None
    clahe_clip: Annotated[
        float | None,
        Field(ge=0, description="Clip limit of the local (CLAHE) equalisation; 0 leaves it out."),
    ] = None
    clahe_tiles: Annotated[int | None, Field(ge=1, le=64, description="Tiles per side for CLAHE.")] = None
    bilateral_diameter: Annotated[
        int | None, Field(ge=0, le=64, description="Bilateral filter's diameter in pixels; 0 leaves it out.")
    ] = None
    bilateral_sigma_colour: Annotated[
        float | None, Field(gt=0, description="Its sigma in colour, as given for three equal channels.")
    ] = None
    bilateral_sigma_space: Annotated[float | None, Field(gt=0, description="Its sigma in space, pixels.")] = None
    morphology: Annotated[
        int | None, Field(ge=0, le=64, description="Kernel side of closing, then opening; 0 leaves them out.")
    ] = None
    canny: Annotated[bool | None, Field(description="Add Canny edges as a second plane.")] = None
    canny_low: Annotated[float | None, Field(ge=0, description="Canny's lower threshold.")] = None
    canny_high: Annotated[float | None, Field(ge=0, description="Canny's upper threshold.")] = None

    @model_validator(mode="before")
    @classmethod
    def _folder_of_the_recipe(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        filled = dict(values)
        if "recipe" in filled:
            filled.setdefault("prepared", Path("artifacts/prepared") / str(filled["recipe"]))
        return filled

    def run(self) -> None:
        """Read the manifest, prepare its accepted images, write array, index and recipe."""
        import pandas as pd

        from cxr.images.prepared import prepare_accepted
        from cxr.images.recipes import recipe_named

        changes = self.model_dump(include=set(self.parameters()) - {"recipe", "workers"})
        manifest = pd.read_parquet(self.manifest / "manifest.parquet")
        prepare_accepted(self.data, manifest, recipe_named(self.recipe, **changes), self.prepared, self.workers)

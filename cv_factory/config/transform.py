"""The section ``transform``: what is fitted on the training images before the model."""

from typing import Annotated

from pydantic import Field

from cv_factory.config.section import Section, Seed


class PCAConfig(Section):
    """Principal component analysis of the training pixels."""

    n_components: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="null: 32, or all if the training images have fewer"
    )


class PatchPCAConfig(Section):
    """Principal component analysis of squares of normalized pixels: a network's first layer."""

    size: int = Field(4, ge=2, le=8, description="pixels a side of a square")
    n_components: Annotated[int, Field(ge=1, le=192)] | None = Field(
        None, description="of the size x size x channels there are; null: 16, or all if fewer"
    )
    n_images: int = Field(5000, ge=10, le=100_000, description="training images looked at")


class UMAPConfig(Section):
    """A map of the training images in two dimensions, for a picture; the extra ``backbones``."""

    n_images: int = Field(2000, ge=20, le=20_000, description="training images shown")
    n_neighbors: int = Field(15, ge=2, le=200)
    min_dist: float = Field(0.1, ge=0.0, le=1.0)
    seed: Seed = 0


class TransformConfig(Section):
    """Transforms fitted on the training images before the model."""

    pca: PCAConfig = PCAConfig()
    patches: PatchPCAConfig = PatchPCAConfig()
    umap: UMAPConfig | None = Field(None, description="a map of the images, for the dashboard")

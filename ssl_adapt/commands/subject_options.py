"""The keys that say which frozen network sees which images, of `knn`, `linear` and `embed`."""

from pydantic import Field

from ssl_adapt.data_names import DataName
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, CountOrZero, Text


class SubjectOptions(Section):
    """A network and images; what is not given is that of the run, where the model is one."""

    model: Text = Field(description="a run folder, an export folder, local-dir:FOLDER, hf-hub:NAME or a name of timm")
    data: DataName | None = Field(
        default=None, description="the images; null: those of the run, where model is a run folder"
    )
    root: Text | None = Field(
        default=None, description="folder or tar that holds the images; null: the run's, or the data set's usual place"
    )
    image_column: Text | None = Field(default=None, description="csv, hf, webdataset: as data.image_column of a recipe")
    label_column: Text | None = Field(default=None, description="csv, hf, webdataset: as data.label_column of a recipe")
    image_px: Count | None = Field(
        default=None, description="side of the square images that the network sees; null: its input size"
    )
    pretrained: bool = Field(default=True, description="false: a network of timm with random weights (seed 0)")
    batch_size: Count = Field(default=500, description="images that the network sees at a time")
    device: Text | None = Field(
        default=None, description="where the network runs, such as cuda:1 or cpu; null: on a GPU where there is one"
    )
    workers: CountOrZero | None = Field(
        default=None,
        description="processes that decode images that are not in memory, of each process; null: the run's, or 4",
    )

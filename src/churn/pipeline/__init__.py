"""The stages as data: what each reads and writes. dvc.yaml says the same, and a test holds the two together."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from churn import models, paths
from churn.errors import SourceError
from churn.params import Params, load_params
from churn.settings import Settings, load_settings


@dataclass(frozen=True)
class Stage:
    """One step: its name is its module, its DVC stage, its section of params.yaml and its word on the command line.

    `reads` and `writes` are files and folders of data. `touches` names what it changes outside the workspace: such a stage is run
    again rather than restored from DVC's run cache.
    """

    name: str
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]
    touches: tuple[str, ...] = ()

    def run(self, **options: Any) -> None:
        """Run the stage on params.yaml and the environment.

        Raises:
            ChurnError: whatever the stage refuses.
        """
        params, settings = self.inputs()
        import_module(f"churn.pipeline.{self.name}").run(params, settings, **options)

    def inputs(self) -> tuple[Params, Settings]:
        """params.yaml and the environment, for a stage whose data is there.

        Raises:
            ChurnError: one of them is wrong, or data is missing.
        """
        params, settings = load_params(), load_settings()
        models.check(params.train)
        for path in self.reads:
            if not path.exists():
                raise SourceError(f"{self.name}: {path} is not there; run the stages in their order: `dvc repro`")
        return params, settings


STAGES = {
    stage.name: stage
    for stage in (
        Stage("prepare", reads=(paths.RAW,), writes=(paths.TRAIN_ROWS, paths.TEST_ROWS)),
        Stage(
            "featurize",
            reads=(paths.TRAIN_ROWS, paths.TEST_ROWS),
            writes=(paths.FEATURES,),
            touches=("Feast's registry", "online store"),
        ),
        Stage(
            "train",
            reads=(paths.TRAIN_ROWS, paths.TEST_ROWS, paths.FEATURES),
            writes=(
                paths.CANDIDATE,
                paths.BASELINE,
                paths.TEST_FRAME,
                paths.TRAIN_METRICS,
                paths.TRAIN_REPORTS,
                paths.PLOTS / "importance.csv",
                paths.PLOTS / "loss.csv",
            ),
        ),
        Stage(
            "evaluate",
            reads=(paths.TEST_FRAME, paths.CANDIDATE, paths.BASELINE, paths.TRAIN_METRICS),
            writes=(
                paths.EVALUATE_METRICS,
                paths.EVALUATE_REPORTS,
                *(paths.PLOTS / f"{name}.csv" for name in ("roc", "precision_recall", "calibration", "lift", "confusion")),
            ),
            touches=("model registry",),
        ),
    )
}

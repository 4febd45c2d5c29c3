"""What a run needs whatever its data: frame sizes, weights, a folder for results. Never imports torch."""

from __future__ import annotations

from pathlib import Path

from acar.config import Config
from acar.data.check.facts import Problems
from acar.data.label_map import LabelMap
from acar.data.sources import label_map_path
from acar.detection.published import check_published, is_published
from acar.errors import UserError
from acar.files import check_output_folder
from acar.models.grid import check_frame_sizes
from acar.weights.catalogue import check_fetched, weights_path
from acar.weights.headers import TAKEN_KEY, check_state_dict, check_taken, read_weights_header
from acar.workflow import initial_detector_files, weights_read


def check_start(config: Config, label_map: LabelMap | None, problems: Problems) -> None:
    """Note what stops a run whatever its videos are.

    Args:
        config: the merged config.
        label_map: the classes, if they can be read already.
        problems: is added to.
    """
    with problems.caught():
        check_frame_sizes(config)
    with problems.caught():
        check_output_folder(config.run.results, option="run.results:")
    for key, weights in weights_read(config).items():
        _check_weights(config, key, weights, label_map, problems)
    _check_detector(config, problems)


def _check_weights(
    config: Config, key: str, weights: str, label_map: LabelMap | None, problems: Problems
) -> None:
    with problems.caught():
        check_fetched(weights, key)
        path = weights_path(weights)
        if not path.exists():
            problems.stop(f"{key}: {weights}: no such file; see README, Weights")
            return
        try:
            header = read_weights_header(path)
        except UserError as error:
            problems.stop(f"{key}: {error}")
            return
        if key == TAKEN_KEY:
            check_taken(path, header, label_map_path(config), label_map)


def _check_detector(config: Config, problems: Problems) -> None:
    """What the detector starts from; a training asks for the file as well, and reads nothing of it."""
    detector = config.detector
    if detector.source == "boxes" or detector.weights is None:
        return
    with problems.caught():
        if detector.source == "weights" and is_published(detector.weights):
            check_published(detector, detector.weights)
        elif detector.source == "weights":
            check_state_dict(Path(detector.weights))
        else:
            for file in initial_detector_files(config).values():
                if not Path(file).exists():
                    problems.stop(f"detector.weights: {file}: no such file")

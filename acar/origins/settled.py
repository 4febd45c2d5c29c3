"""Which readers of a bank need not run again when the bank is only rebuilt (docs/adr/0003).

Snakemake reruns whatever follows from a job in the same call, before anyone can know whether the job's output
changed. For a lost shard of the bank that would mean hours of training for nothing.
"""

from __future__ import annotations

from acar.bank.source import rebuilt_is_the_same
from acar.config import SPLITS, Config, Split
from acar.origins.record import Artefact, Digests, config_of, inputs_of, read_origin
from acar.paths import Paths


class Settled:
    """Answers for one reading of the Snakefile; each file is read once."""

    def __init__(self, config: Config) -> None:
        self.config, self.paths = config, Paths.of(config)
        self._digests = Digests(self.paths)
        self._same: dict[Split, bool] = {}

    def __call__(self, reader: Artefact) -> bool:
        """Whether banks that are extracted and sealed again now cannot change what `reader` has made of them.

        That is so if they would come from what they came from, and the reader's artefact came from these banks,
        from every other input and from the config as they are now. The second condition matters because
        Snakemake looks for no further reason to run a job behind one that runs.
        """
        origin = read_origin(reader.folder(self.paths))
        if origin is None or origin["config"] != config_of(self.config, reader):
            return False
        now = {given.name: self._digests.of(given) for given in inputs_of(self.config, reader)}
        return now == origin["inputs"] and all(self._rebuilt_is_the_same(split) for split in SPLITS)

    def _rebuilt_is_the_same(self, split: Split) -> bool:
        if split not in self._same:
            self._same[split] = rebuilt_is_the_same(self.config, split)
        return self._same[split]

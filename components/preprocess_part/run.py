"""Extracts one part of a corpus to shards. Several pods extract parts in parallel; `preprocess` joins their shards."""

from components.contracts import PreprocessPartOutput, ResolveDataOutput
from components.preprocess.run import PARTS, earlier_stores, extraction_code, report_progress, store_key
from components.runner import parse_settings
from components.state import State
from model.config.data import PreprocessSettings
from model.features.extract import Part, extract_part


def run(data: str, settings: str, part: str) -> PreprocessPartOutput:
    """Extracts one part of the corpus, and resumes where an interrupted attempt stopped.

    Args:
        data: Path of the `ResolveDataOutput`.
        settings: JSON of the `PreprocessSettings`.
        part: `2/4` is the third of four equal parts.
    """
    corpus = ResolveDataOutput.read(data)
    config = parse_settings(PreprocessSettings, settings)
    state = State.locate()
    number, parts = map(int, part.split("/"))
    folder = state.folder(PARTS, store_key(corpus.data_hash, config), f"{number}-of-{parts}")
    count = extract_part(
        corpus.corpus,
        folder,
        config,
        Part(number, parts),
        code=extraction_code(),
        earlier=earlier_stores(state.root / "features"),
        report=report_progress,
    )
    return PreprocessPartOutput(summary=f"part {part}: {count} clips", shards=folder, part=part)

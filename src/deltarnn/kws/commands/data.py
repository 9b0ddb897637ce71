"""The steps before training, as the command line calls them: prepare and feature."""

from pathlib import Path

from deltarnn.kws.config.resolve import Config


def prepare(config: Config) -> None:
    """List the clips of the data set, fetched or synthesised first where that is asked for."""
    from deltarnn.kws.data import prepare as preparation

    if config.data.dataset == "synth":
        from deltarnn.kws.data.synthetic import make_corpus

        own = config.folder("data") / "corpus"
        config = config.replace(data_dir=config.data.data_dir if "data_dir" in config.given else str(own))
        seed, scale = config.training.seed, config.data.synth_scale
        make_corpus(Path(config.data.data_dir), config.data.keywords, seed, scale, config.run.workers)
    if config.data.download and config.data.dataset == "gscdv2":
        from deltarnn.kws.data.download import download

        download(Path(config.data.data_dir), config.data.download_url)
    preparation.prepare(config)


def feature(config: Config) -> None:
    """Compute the features of every clip that `prepare` listed."""
    from deltarnn.kws.features import store

    store.feature(config)

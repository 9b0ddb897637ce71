"""The steps before training, as the command line calls them: prepare and feature."""

from deltarnn.kws.config import Config


def prepare(config: Config) -> None:
    """List the clips of the data set, fetched or synthesised first where that is asked for."""
    from deltarnn.kws import prepare as preparation

    preparation.prepare(config)


def feature(config: Config) -> None:
    """Compute the features of every clip that `prepare` listed."""
    from deltarnn.kws import features

    features.feature(config)

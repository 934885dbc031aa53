"""Cache policy of the steps: a thin step is stale when the library code that it calls changed."""

from zenml.config.cache_policy import CachePolicy

from cv_factory.code_fingerprint import source_files


def depends_on(*modules: str) -> CachePolicy:
    """Return a cache policy whose key covers every library file that the modules reach.

    Args:
        modules: Dotted names in ``cv_factory``, such as ``cv_factory.transforms.fitted``.
    """
    return CachePolicy(file_dependencies=list(source_files(*modules)))

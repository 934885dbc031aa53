"""What a module depends on is found, and what it does not is not."""

from cv_factory.code_fingerprint import code_fingerprint, source_files


def test_direct_and_indirect_imports_are_found() -> None:
    files = source_files("cv_factory.transforms.fitted")
    assert "cv_factory/transforms/pca.py" in files
    assert "cv_factory/errors.py" in files, "pca imports it"


def test_imports_inside_functions_are_found() -> None:
    assert "cv_factory/training/network.py" in source_files("cv_factory.training.train")


def test_plots_are_no_part_of_training_or_fitting() -> None:
    files = source_files("cv_factory.training.train", "cv_factory.transforms.fitted")
    assert not [name for name in files if "evaluation" in name]


def test_training_depends_on_the_pca() -> None:
    assert "cv_factory/transforms/pca.py" in source_files("cv_factory.training.train")


def test_the_code_fingerprint_differs_between_entry_points() -> None:
    one, other = (code_fingerprint(f"cv_factory.{m}") for m in ("data.split", "data.decode"))
    assert one != other
    assert one == code_fingerprint("cv_factory.data.split")

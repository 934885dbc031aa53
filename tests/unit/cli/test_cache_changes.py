"""What a run says of the settings that made it run a step again."""

from cli.cache_changes import find_changed_settings


def test_each_changed_setting_is_named_with_both_values() -> None:
    before = {"config": {"epochs": 30, "crop": 1, "pca": {"n": 3}}, "model": {"name": "small_cnn"}}
    after = {"config": {"epochs": 3, "crop": 1, "pca": {"n": 4}}, "model": {"name": "x" * 60}}
    assert list(find_changed_settings(before, after)) == [
        "epochs is 3, was 30",
        "pca.n is 4, was 3",
        f"model.name is {'x' * 39}…, was small_cnn",
    ]
    assert list(find_changed_settings({"seed": 1}, {"seed": None})) == ["seed is not set, was 1"]
    assert list(find_changed_settings({}, {"seed": 1})) == ["seed is 1, was not set"]
    assert list(find_changed_settings(before, before)) == []

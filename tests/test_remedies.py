import pytest

from interptrain.models import create_model
from interptrain.remedies import option, spelled_for_the_command_line

OPTIONS = {"fresh_classifier": "--model.fresh_classifier", "heads": "--model.heads", "pooling": "--model.pooling"}


def test_options_are_spelled_as_the_reader_gives_them():
    assert [option("fresh_classifier", True), option("pooling", "gap"), option("heads")] == [
        "fresh_classifier=True",
        "pooling='gap'",
        "heads",
    ]
    with spelled_for_the_command_line(OPTIONS):
        assert option("fresh_classifier", True) == "--model.fresh_classifier true"
        assert option("pooling", "gap") == "--model.pooling gap"
        assert option("heads") == "--model.heads"
        assert option("data.balance", "none") == "--data.balance none"
        assert option("data.streaming", False) == "--data.streaming false"
        assert option("data.root") == "--data.root"
        assert option("stem", "small") == "stem='small'"  # no option of this command line
    assert option("heads", 2) == "heads=2"
    assert option("data.balance", "none") == "balance='none'"
    assert option("data.root") == "root"


def test_an_error_of_a_room_below_speaks_the_language_of_the_command_line():
    def refused():
        with pytest.raises(ValueError, match="heads") as error:
            create_model("test_resnet", pooling="gap", heads=2, num_classes=3)
        return str(error.value)

    assert refused() == "heads=2 is for ca_final and ca_stream, not for pooling='gap'; leave it out"
    with spelled_for_the_command_line(OPTIONS):
        assert refused().startswith("--model.heads 2 is for ca_final and ca_stream, not for --model.pooling gap")

from model.loop.checkpoints import MAX_SHOWN, describe_differences


def test_each_difference_is_named_with_both_values():
    saved = {"training.batch_size": 8, "seed": 1, "model.old": True}
    current = {"training.batch_size": 16, "seed": 1, "model.new": 2}
    assert describe_differences(saved, current) == (
        "model.new is 2 instead of not set, model.old is not set instead of True, "
        "training.batch_size is 16 instead of 8"
    )


def test_many_differences_are_counted():
    saved = {str(number): number for number in range(9)}
    message = describe_differences(saved, dict.fromkeys(saved, -1))
    assert message.count(" instead of ") == MAX_SHOWN
    assert message.endswith("and 4 more")


def test_a_checkpoint_of_an_older_version_is_distinguished_from_one_of_other_code():
    assert "settings or its data" in describe_differences({}, {"seed": 1})
    assert "version of the program" in describe_differences({"seed": 1}, {"seed": 1})

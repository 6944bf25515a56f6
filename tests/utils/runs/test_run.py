from utils.runs.run import same_place


def test_the_next_command_finds_the_same_data():
    usual = {"dataset": "voc12", "experiments": "experiments", "root": None, "lr": 0.1}
    assert same_place(usual) == ""
    own = usual | {"dataset": "custom", "root": "my photos", "experiments": "runs"}
    assert same_place(own) == " --dataset custom --root 'my photos' --experiments runs"

"""The study of linear probes finds the runs it has to score."""

from reproduction.linear_runs import run_folder
from reproduction.linear_study import find_arms


def test_finished_runs_of_a_seed_are_found_by_their_arm(tmp_path):
    for arm, seed, is_finished in [
        ("simclr", 1, True),
        ("finetuned-0.01", 1, True),
        ("labels-1", 1, False),
        ("b", 2, True),
    ]:
        folder = run_folder(tmp_path, arm, seed)
        (folder / "export" if is_finished else folder).mkdir(parents=True)
    assert find_arms(tmp_path, 1) == ["finetuned-0.01", "simclr"]
    assert find_arms(tmp_path, 2) == ["b"]
    assert find_arms(tmp_path, 3) == []

"""What makes a run the same run."""

from pathlib import Path

from tests.helpers import make_config
from trainer.record import provenance


def test_a_check_that_is_left_open_is_none_for_a_built_in_network() -> None:
    """Directories of before, where it was false, stay the same runs; of a module of one's own null makes a check."""
    for model, same in ((None, True), ({"_target_": "my.Net"}, False)):
        changes = {"model": model} if model else {}
        hashes = {
            provenance.config_hash(make_config(check={"one_batch": value, "gradients": value}, **changes))
            for value in (None, False)
        }
        assert (len(hashes) == 1) is same


def test_where_files_lie_changes_no_result(tmp_path: Path) -> None:
    assert provenance.config_hash(make_config(**{"data.root": str(tmp_path)})) == provenance.config_hash(make_config())
    assert provenance.config_hash(make_config(seed=1)) != provenance.config_hash(make_config(seed=2))

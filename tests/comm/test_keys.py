import stat

import pytest

from nexrl.comm import RunKeys
from nexrl.comm.keys import KeyPair
from nexrl.errors import RunFolderError


def secrets_of(keys):
    return (keys.controller.secret, keys.clients.secret, keys.http_token)


def test_keys_survive_their_file_which_only_the_owner_reads(tmp_path):
    keys, path = RunKeys.generate(), tmp_path / "secrets.json"
    keys.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert RunKeys.load(path) == keys
    assert [file.name for file in tmp_path.iterdir()] == ["secrets.json"]


def test_every_run_has_keys_of_its_own():
    assert not set(secrets_of(RunKeys.generate())) & set(secrets_of(RunKeys.generate()))


def test_no_secret_is_printed():
    keys = RunKeys.generate()
    shown = f"{keys} {keys!r} {keys.controller!r}"
    assert not any(secret in shown for secret in secrets_of(keys))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_may_touch_is_refused(tmp_path, mode):
    path = tmp_path / "secrets.json"
    RunKeys.generate().save(path)
    path.chmod(mode)
    with pytest.raises(RunFolderError, match=rf"secrets.json: mode {mode:04o}, needed 0600"):
        RunKeys.load(path)


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"controller": 1}'])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "secrets.json"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(RunFolderError, match="not the keys of a run"):
        RunKeys.load(path)


def test_keys_that_do_not_belong_together_are_refused():
    one, other = KeyPair.generate(), KeyPair.generate()
    with pytest.raises(ValueError, match="not the public key"):
        KeyPair(public=one.public, secret=other.secret)


def test_missing_file_and_missing_folder(tmp_path):
    with pytest.raises(RunFolderError, match="cannot read the run's keys"):
        RunKeys.load(tmp_path / "none.json")
    with pytest.raises(RunFolderError, match="cannot write the run's keys"):
        RunKeys.generate().save(tmp_path / "no" / "secrets.json")

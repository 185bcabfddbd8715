"""The embedded corpus as a source."""

import pickle

from spanbert_jax.data.sources import find_units


def test_units_are_its_splits():
    train, valid = find_units("embedded", "", "", "", "blank")
    assert (train.held_out, valid.held_out) == (False, True)
    assert pickle.loads(pickle.dumps(train)) == train != valid and train.fingerprint != valid.fingerprint
    for unit in (train, valid):
        assert unit.size > 10_000
        assert all(line and line == line.strip() for document in unit.documents() for line in document)

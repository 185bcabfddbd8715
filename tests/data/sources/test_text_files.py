"""A document a file, its wrapped paragraphs put together."""

import lzma

from spanbert_jax.data.sources import find_units, units


def test_paragraphs_are_unwrapped_and_files_not_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "SMALLEST", 4)
    (tmp_path / "a.txt").write_text(
        "\nIt was the best of times,\n  it was the worst\nof times.\n\n\nIt was\n" + "long\n" * 100
    )
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"Call me\r\nIshmael."))
    found = find_units(f"{tmp_path}/*", "text", "train", "", "file")
    first, second = [document for unit in found for document in unit.documents()]
    assert first == ["It was the best of times, it was the worst of times.", "It was" + " long" * 100]
    assert second == ["Call me Ishmael."]

"""A document a line, each with one reader however the file is cut."""

from spanbert_jax.data.sources import find_units, text_lines, units

WRITTEN = "\ufeffOne é.\r\n\n  Two \n\n\nThree\nFour"
WANTED = [["One é."], ["Two"], ["Three"], ["Four"]]


def test_every_line_has_one_reader_wherever_the_file_is_cut(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(WRITTEN.encode())
    size = path.stat().st_size
    for step in range(1, size + 1):
        edges = [*range(0, size, step), size]
        assert [
            document
            for begin, end in zip(edges, edges[1:])
            for document in text_lines.documents(str(path), begin, end, "")
        ] == WANTED


def test_units_of_a_file_of_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "SMALLEST", 100)
    lines = [f"document {number}" for number in range(500)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    found = find_units(str(tmp_path / "a.txt"), "text", "train", "", "line")
    assert len(found) > 5
    assert [document for unit in found for document in unit.documents()] == [[line] for line in lines]

"""Clusters of mentions: CoNLL-2012, OntoGUM's short form, JSON Lines; what is written is read again."""

import json
import random

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.coreference import (
    Document,
    read_conll2012,
    read_documents,
    read_json_lines,
    sorted_clusters,
    write_conll2012,
)


def row(number, word, speaker, mentions, arguments=()):
    columns = ["bc/x/00/x_0000", "1", str(number), word, "NN", "(S*", "-", "-", "-", speaker, "*", *arguments, mentions]
    return "   ".join(columns) + "\n"


CONLL = (
    "#begin document (bc/x/00/x_0000); part 001\n"
    + row(0, "Ann", "A#1", "(0|(12")
    + row(1, "Lee", "A#1", "0)|(3)", ["(V*)"])
    + row(2, "here", "A#1", "12)", ["(V*)"])
    + "\n"
    + row(0, "She", "-", "(0)")
    + row(1, "it", "-", "(3)|(12)")
    + "\n#end document\n"
)
EXPECTED = Document(
    "bc/x/00/x_0000",
    1,
    "bc",
    (("Ann", "Lee", "here"), ("She", "it")),
    (("A#1",) * 3, ("", "")),
    (((0, 1), (3, 3)), ((0, 2), (4, 4)), ((1, 1), (4, 4))),
)


def written(tmp_path, text, name="x.conll"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_conll_2012(tmp_path):
    (found,) = read_documents(written(tmp_path, CONLL))
    assert found == EXPECTED
    assert [found.mention_text(mention) for mention in found.clusters[1]] == ["Ann Lee here", "it"]


def test_the_short_form(tmp_path):
    lines = "# begin document \n0\tA\t(1(2)\n1\tb\t1)(3\n2\t\t3)\n3\tc\t(2)(1)(3)\n# end document\n"
    written(tmp_path, lines, "GUM_fiction_x.conll")
    (found,) = read_conll2012(tmp_path)  # a folder
    assert (found.id, found.genre, found.words) == ("GUM_fiction_x", "fiction", (("A", "b", "_", "c"),))
    assert found.clusters == (((0, 0), (3, 3)), ((0, 1), (3, 3)), ((1, 2), (3, 3)))


def test_json_lines(tmp_path):
    record = {
        "doc_key": "bc/x/00/x_0000_1",
        "sentences": EXPECTED.words,
        "speakers": [["A#1"] * 3, ["-", ""]],
        "clusters": EXPECTED.clusters[::-1],
    }
    path = written(tmp_path, json.dumps(record) + "\n" + json.dumps({"doc_key": "y", "sentences": [["a"]]}), "x.jsonl")
    first, second = read_documents(path)
    assert first == EXPECTED
    assert second == Document("y", 0, "", (("a",),), (("",),), ())


def random_document(generator, number):
    words = [[generator.choice("ab(1)#*-") for _ in range(generator.randint(1, 6))] for _ in range(4)]
    count = sum(map(len, words))
    spans = sorted({tuple(sorted(generator.choices(range(count), k=2))) for _ in range(10)})
    clusters = [[] for _ in range(3)]
    for first, last in spans:
        cluster = generator.choice(clusters)
        if not any(a < first <= b < last for a, b in cluster):  # none of a cluster cross
            cluster.append((first, last))
    speakers = tuple(tuple(generator.choice(["", "Jo Ann"]) for _ in sentence) for sentence in words)
    clusters = sorted_clusters(filter(None, clusters))
    return Document(f"x (y); z {number}", number % 3, "", tuple(map(tuple, words)), speakers, clusters)


def test_what_is_written_is_read_again(tmp_path):
    generator = random.Random(0)
    documents = [EXPECTED, *(random_document(generator, number) for number in range(30))]
    write_conll2012(tmp_path / "y.conll", documents, [document.clusters for document in documents])
    assert read_conll2012(tmp_path / "y.conll") == documents
    write_conll2012(tmp_path / "y.conll", [EXPECTED], [()])
    assert read_conll2012(tmp_path / "y.conll")[0].clusters == ()


def test_crossing_mentions_of_one_cluster_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="0-2 and 1-3 of one cluster cross"):
        write_conll2012(tmp_path / "y", [EXPECTED], [(((0, 2), (1, 3)),)])
    assert not (tmp_path / "y").exists()


def test_what_is_malformed(tmp_path):
    lines = "# begin document x\n0\ta\t(1\n1\tb\t2)\n2\tc\t_\n3\td\t_\t_\n4\te\tq\n#end document\n# begin document y\n"
    path = written(tmp_path, lines)
    with pytest.raises(InputError) as error:
        read_conll2012(path)
    found = str(error.value).splitlines()
    assert [line.split(", line ")[1].split(":")[0] for line in found] == ["3", "5", "6", "2", "8"]
    assert "cluster 2 ends that has not begun" in found[0] and "4 columns, not 3" in found[1]
    assert "mentions 'q'" in found[2] and "cluster 1 that begins here does not end" in found[3]
    assert "document y has no '#end document'" in found[4]
    for text, said in (("0\ta\t_\n", "line 1: no '#begin document'"), ("\n", "no documents")):
        with pytest.raises(InputError, match=said):
            read_documents(written(tmp_path, text))
    for more, said in (
        ({"clusters": [[[0, 9]]]}, r"'clusters' are not lists of \[first, last\] of the 2 words"),
        ({"clusters": [3]}, "'clusters' are not"),
        ({"speakers": [["a"]]}, "'speakers' have not the shape"),
        ({"sentences": [["a", 3]]}, "'sentences' are not lists of words"),
    ):
        with pytest.raises(InputError, match="line 1: " + said):
            read_json_lines(written(tmp_path, json.dumps({"doc_key": "x", "sentences": [["a", "b"]]} | more)))

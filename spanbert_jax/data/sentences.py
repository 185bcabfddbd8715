"""Sentence splitting by language."""

import types

from spanbert_jax.errors import InputError

NONE = "none"
# ISO 639-1. The library takes any string and falls back on English rules, so a wrong code ("english", "ger") would go
# unnoticed.
_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg
ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn
no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta
te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
LANGUAGES = frozenset(_CODES.split())


class Splitter:
    """Splits lines into sentences: `Splitter("en")(lines) -> sentences`. Picklable.

    The work is done by sentencex (Wikimedia), which has rules and abbreviations for some 30 languages and uses those of
    a related language for the others; where it is unsure, it does not split.
    """

    def __init__(self, language: str):
        """Checks the language.

        Args:
          language: "none" (every line is one sentence), or an ISO 639-1 code, also with a region ("pt-br").

        Raises:
          InputError: the language is unknown, or sentencex is not installed.
        """
        if language != NONE and language.split("-")[0] not in LANGUAGES:
            raise InputError(
                f"language {language!r} is unknown; give its code of two letters, such as 'en', 'de' or 'zh', "
                "or 'none' for text with one sentence per line",
                "sentences",
            )
        self.language = language
        if language != NONE:
            import_library()

    def __call__(self, lines: list[str]) -> list[str]:
        """Returns the sentences of the lines, in order, stripped and not empty. No sentence crosses the end of a
        line.
        """
        if self.language == NONE:
            return lines
        segment = import_library().segment
        sentences = (sentence.strip() for line in lines for sentence in segment(self.language, line))
        return [sentence for sentence in sentences if sentence]


def import_library() -> types.ModuleType:
    """Returns the module sentencex.

    Raises:
      InputError: it is not installed.
    """
    try:
        import sentencex
    except ImportError as error:
        raise InputError(
            "splitting text into sentences needs sentencex: pip install 'spanbert_jax[prepare]', "
            "or give language 'none' for text with one sentence per line",
            "sentences",
        ) from error
    return sentencex

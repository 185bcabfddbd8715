"""Paragraphs to sentences, by language."""

from spanbert_jax.errors import InputError

NONE = "none"
# ISO 639-1. The library takes any string and falls back on English rules, so a slip ("english", "ger") would never be seen.
LANGUAGES = frozenset(
    [
        "aa",
        "ab",
        "ae",
        "af",
        "ak",
        "am",
        "an",
        "ar",
        "as",
        "av",
        "ay",
        "az",
        "ba",
        "be",
        "bg",
        "bh",
        "bi",
        "bm",
        "bn",
        "bo",
        "br",
        "bs",
        "ca",
        "ce",
        "ch",
        "co",
        "cr",
        "cs",
        "cu",
        "cv",
        "cy",
        "da",
        "de",
        "dv",
        "dz",
        "ee",
        "el",
        "en",
        "eo",
        "es",
        "et",
        "eu",
        "fa",
        "ff",
        "fi",
        "fj",
        "fo",
        "fr",
        "fy",
        "ga",
        "gd",
        "gl",
        "gn",
        "gu",
        "gv",
        "ha",
        "he",
        "hi",
        "ho",
        "hr",
        "ht",
        "hu",
        "hy",
        "hz",
        "ia",
        "id",
        "ie",
        "ig",
        "ii",
        "ik",
        "io",
        "is",
        "it",
        "iu",
        "ja",
        "jv",
        "ka",
        "kg",
        "ki",
        "kj",
        "kk",
        "kl",
        "km",
        "kn",
        "ko",
        "kr",
        "ks",
        "ku",
        "kv",
        "kw",
        "ky",
        "la",
        "lb",
        "lg",
        "li",
        "ln",
        "lo",
        "lt",
        "lu",
        "lv",
        "mg",
        "mh",
        "mi",
        "mk",
        "ml",
        "mn",
        "mr",
        "ms",
        "mt",
        "my",
        "na",
        "nb",
        "nd",
        "ne",
        "ng",
        "nl",
        "nn",
        "no",
        "nr",
        "nv",
        "ny",
        "oc",
        "oj",
        "om",
        "or",
        "os",
        "pa",
        "pi",
        "pl",
        "ps",
        "pt",
        "qu",
        "rm",
        "rn",
        "ro",
        "ru",
        "rw",
        "sa",
        "sc",
        "sd",
        "se",
        "sg",
        "si",
        "sk",
        "sl",
        "sm",
        "sn",
        "so",
        "sq",
        "sr",
        "ss",
        "st",
        "su",
        "sv",
        "sw",
        "ta",
        "te",
        "tg",
        "th",
        "ti",
        "tk",
        "tl",
        "tn",
        "to",
        "tr",
        "ts",
        "tt",
        "tw",
        "ty",
        "ug",
        "uk",
        "ur",
        "uz",
        "ve",
        "vi",
        "vo",
        "wa",
        "wo",
        "xh",
        "yi",
        "yo",
        "za",
        "zh",
        "zu",
    ]
)


class Splitter:
    """Cuts lines into sentences: `Splitter("en")(lines) -> sentences`. It goes through pickle.

    `language` is "none" (every line is a sentence already) or an ISO 639-1 code, also with a region ("pt-br"). By sentencex (Wikimedia):
    rules and abbreviations for some 30 languages, and for the others those of a relative; where it is unsure, it does not cut. Raises
    InputError for an unknown language and without the library.
    """

    def __init__(self, language: str):
        if language != NONE and language.split("-")[0] not in LANGUAGES:
            raise InputError(
                f"language {language!r} is not known; give its code of two letters, as in 'en', 'de' or 'zh', "
                "or 'none' for text that has a sentence on each line already"
            )
        self.language = language
        if language != NONE:
            import_library()

    def __call__(self, lines: list[str]) -> list[str]:
        """Sentences of the lines, in order, stripped and not empty; no sentence runs over the end of a line."""
        if self.language == NONE:
            return lines
        segment = import_library().segment
        return [sentence for line in lines for part in segment(self.language, line) if (sentence := part.strip())]


def import_library():
    """The module sentencex. Raises InputError without it."""
    try:
        import sentencex
    except ImportError as error:
        raise InputError(
            "splitting text into sentences needs sentencex; pip install 'spanbert_jax[prepare]', "
            "or give language 'none' for text that has a sentence on each line already"
        ) from error
    return sentencex

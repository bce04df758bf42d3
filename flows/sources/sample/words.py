"""The words that synthetic search queries are made of, by marketplace."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """What shoppers of one marketplace type: `products` name things, the rest narrows them."""

    products: tuple[str, ...]
    modifiers: tuple[str, ...]
    uses: tuple[str, ...]


AMERICAN = Words(
    products=(
        "water bottle",
        "yoga mat",
        "dog bowl",
        "desk lamp",
        "garden hose",
        "phone stand",
        "coffee grinder",
        "lunch box",
    ),
    modifiers=("", "large", "best", 'blue 12"', "insulated, bpa free", "gray", "jalapeño"),
    uses=("", "for kids", "with lid, straw & handle", 'size 10" x 12"', "gift", "café style"),
)
BRITISH = Words(
    products=AMERICAN.products,
    modifiers=("", "large", "aluminium", 'grey 12"', "eco, plastic free", "colourful", "crème"),
    uses=("", "for children", "1 litre, with lid", 'fits 10" x 12"', "gift", "café style"),
)
GERMAN = Words(
    products=(
        "trinkflasche",
        "yogamatte",
        "hundenapf",
        "schreibtischlampe",
        "gartenschlauch",
        "handyhalterung",
        "kaffeemühle",
        "brotdose",
    ),
    modifiers=("", "große", "günstige", 'schwarze 12"', "weiße, schadstofffreie", "schöne", "öko"),
    uses=("", "für kinder", "edelstahl, 1 l", 'maße 10" x 12"', "geschenk", "fürs büro & café"),
)
FRENCH = Words(
    products=(
        "gourde",
        "tapis de yoga",
        "gamelle pour chien",
        "lampe de bureau",
        "tuyau d'arrosage",
        "support téléphone",
        "moulin à café",
        "boîte à goûter",
    ),
    modifiers=("", "grande", "meilleure", 'bleue 12"', "écologique, sans bpa", "légère", "forêt"),
    uses=("", "pour enfants", "inox, 1 l", 'taille 10" x 12"', "cadeau", "façon café"),
)

_WORDS = {"US": AMERICAN, "UK": BRITISH, "DE": GERMAN, "FR": FRENCH}

SCRIPT_QUERY = "<script>alert(1)</script>"
FORMULA_QUERY = "=cmd|' /C calc'!A0"
LONG_QUERY = " ".join(["long"] * 1200) + "s"
"""6,000 characters, longer than any index entry may be."""


def words_of(country_code: str) -> Words:
    """The words of a country's shoppers; English where none are known."""
    return _WORDS.get(country_code, AMERICAN)


def search_queries(country_code: str, count: int) -> list[str]:
    """`count` different queries, the plainest first; query i is about product i % 8.

    A quarter down the list are a query that is a script and one that is a spreadsheet formula.
    """
    words = words_of(country_code)
    queries = [_search_query(words, position) for position in range(count)]
    queries[count // 4 : count // 4 + 2] = [SCRIPT_QUERY, FORMULA_QUERY]
    return queries


def _search_query(words: Words, position: int) -> str:
    turn, product = divmod(position, len(words.products))
    turn, modifier = divmod(turn, len(words.modifiers))
    pack, use = divmod(turn, len(words.uses))
    parts = [words.modifiers[modifier], words.products[product], words.uses[use]]
    if pack:
        parts.append(f"{pack + 1} pack")
    return " ".join(part for part in parts if part)

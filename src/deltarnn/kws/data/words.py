"""Words that are no keywords: those of Speech Commands, and further ones for synthetic speech."""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


OTHER_WORDS = listed(
    "bed bird cat dog eight five four happy house marvin nine one seven sheila six three tree two wow zero"
)
"""The twenty words of Speech Commands' first version beside its ten keywords."""

FURTHER_WORDS = listed(
    "about above again air all animal answer apple arm away baby back bag ball bank bath bear begin bell better big "
    "black blue boat body book born bottle box boy bread bring brother brown build bus butter call candle car carry "
    "chair change child city class clean clock close cloud coffee cold colour come cook corner country cover cross "
    "dance dark day deep dinner door dream drink drive early earth east easy egg end engine enough evening ever eye "
    "face fact fall family far farm fast father feel field fight fill finger fire first fish floor flower fly food "
    "foot forest forget form forward friend front full game garden girl give glass gold good gone grass great green "
    "ground grow guitar hair half hand hard hat head hear heart heavy help here hill history hold hope horse hot "
    "hour ice idea island job join jump keep key kind kitchen lady lake land large last late laugh learn leg letter "
    "level life lift light line listen little live long look lost love low lunch machine make man market may mean "
    "meet milk minute money month moon morning mother mountain mouth move music name nature near neck need never new "
    "next night noise north nose note nothing notice number ocean offer office oil old only open orange order other "
    "outside over page paint paper park part party pass path pay pen people phone picture piece place plan plant "
    "play please point poor power press price problem pull push put question quick quiet radio rain reach read ready "
    "red rest rich ride ring river road rock roll room round run sail salt same sand save school sea seat second see "
    "sell send set shape ship shoe shop short show shut side sign silver simple sing sister sit sky sleep slow small "
    "smile snow soft some song soon sound south space speak spoon spring stand star start station stay step still "
    "stone store story street strong student study such sugar summer sun sure sweet swim table take talk tall taste "
    "teach tell ten test thank thing think tie time today together tomorrow tool top touch town train travel true "
    "trust try turn under until use valley very view village visit voice wait walk wall want war warm wash watch "
    "water way weather week well west wheel white wide wife wild wind window wine winter wish woman wood word work "
    "world write year yellow young"
)
"""Common words; those that sound like a keyword are left out when they are used."""

DIGITS = listed("zero one two three four five six seven eight nine")

FUNCTION_WORDS = listed(
    "the of and to in is it that was for with as his they be at this from or had by but what some we can were all when "
    "your how said an each she which do their if will many then them would like so these her him two has more could "
    "did most my than who been find any one made where after came me our through very much before too does three also "
    "even here must high why ask went us again not are you there out into"
)
"""What sentences are held together by."""

HOMOPHONES = {
    "no": {"know"}, "right": {"write"}, "two": {"to", "too"}, "four": {"for"}, "one": {"won"}, "eight": {"ate"},
}  # fmt: skip
"""Words that sound the same as a keyword: nobody could tell them apart."""

SOUND_ALIKE = {
    "no": {"know", "now", "note"},
    "right": {"write", "ride"},
    "go": {"gold"},
    "on": {"own"},
    "off": {"offer"},
    "left": {"lift"},
    "yes": {"year"},
    "up": {"cup"},
    "stop": {"step", "top"},
    "down": {"town", "done"},
    "four": {"for"},
    "two": {"to", "too"},
    "one": {"won"},
    "eight": {"ate"},
}
"""Words too close to a keyword to stand for unknown speech."""


def further_unknown_words(keywords: tuple[str, ...]) -> list[str]:
    """Words for further unknown speech: none is a keyword or sounds like one."""
    barred = set(keywords).union(*(SOUND_ALIKE.get(word, set()) for word in keywords))
    return sorted({*FURTHER_WORDS, *OTHER_WORDS} - barred)


def spoken_words(keywords: tuple[str, ...]) -> list[str]:
    """Words of which sentences without a keyword are made, words that come close to one among them."""
    barred = set(keywords).union(*(HOMOPHONES.get(word, set()) for word in keywords))
    near = {word for others in SOUND_ALIKE.values() for word in others}
    # Twice the function words: half of what people say is made of few of them.
    return sorted({*FURTHER_WORDS, *OTHER_WORDS, *near} - barred) + 3 * sorted({*FUNCTION_WORDS} - barred)

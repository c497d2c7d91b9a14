"""The small world that pocket-llama is trained on, generated from lists and templates.

Kinds of document, so that what the lessons look for is really there:

- recall: facts about people, drawn at random, each said again later in the same document;
- alone: one such fact and nothing else;
- facts: what is always true in this world (capitals, opposites, colours, ...);
- stories: a neutral opening, then one mood, happy or sad, to the end;
- choices: sentences with several right endings, each equally likely;
- repeats: random words, then the same words again;
- pairs: names and words paired at random, each pair said again and again.

Everything is drawn from one `random.Random`, so a seed gives the same corpus again. A tenth of
the (person, object) pairs never occurs in training (`held_out`): recall of those is measured too.
"""

from __future__ import annotations

import random
import zlib

NAMES = """Trump Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia
Peter Quinn Rosa Sam Tina Umar Vera Will Xenia Yusuf Zoe Alice Bob Carol Dan Eve Frank Gina Hugo
Ivan Julia Karl Lucy Mark Nina Oscar Paula Ravi Sara Tom Uma Victor Wendy Amir""".split()

# kind of fact -> (how the fact is said, the objects it is said of)
RECALL = {
    "works": (
        "{name} works at {object}.",
        """McDonald's Google Walmart Starbucks IKEA Amazon Disney Netflix Toyota Nike Boeing Siemens
        Nokia Sony Intel NASA Harvard Oxford Samsung Lego Tesla Visa Pepsi Ford""".split(),
    ),
    "lives": (
        "{name} lives in {object}.",
        """Paris Rome Berlin Madrid London Tokyo Beijing Cairo Athens Oslo Lisbon Vienna Dublin
        Warsaw Moscow Delhi Ottawa Lima Nairobi Havana Boston Chicago Sydney Milan""".split(),
    ),
    "likes": (
        "{name} likes {object}.",
        """pizza soup bread cheese rice pasta salad cake honey apples grapes carrots beans fish
        eggs nuts chocolate pancakes mushrooms onions tomatoes lemons noodles toast""".split(),
    ),
    "has": (
        "{name} has a {object}.",
        """cat dog horse rabbit parrot hamster snake turtle goat pony bicycle car boat piano violin
        camera kite drum lamp ladder telescope garden bakery tent""".split(),
    ),
    "wears": (
        "{name} wears a {object}.",
        """hat scarf coat ring watch crown mask shirt jacket belt helmet dress sweater skirt tie
        necklace cape uniform wig vest badge robe hood bracelet""".split(),
    ),
}

CAPITALS = dict(
    pair.split(":")
    for pair in """France:Paris Italy:Rome Germany:Berlin Spain:Madrid England:London Japan:Tokyo
    China:Beijing Egypt:Cairo Greece:Athens Norway:Oslo Portugal:Lisbon Austria:Vienna
    Ireland:Dublin Poland:Warsaw Russia:Moscow India:Delhi Canada:Ottawa Peru:Lima Kenya:Nairobi
    Cuba:Havana Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Belgium:Brussels
    Hungary:Budapest Turkey:Ankara Iran:Tehran Iraq:Baghdad Chile:Santiago Thailand:Bangkok
    Vietnam:Hanoi Nepal:Kathmandu Ghana:Accra Morocco:Rabat Iceland:Reykjavik Serbia:Belgrade
    Bulgaria:Sofia Romania:Bucharest Latvia:Riga Estonia:Tallinn""".split()
)
OPPOSITES = dict(
    pair.split(":")
    for pair in """hot:cold big:small up:down fast:slow day:night old:young rich:poor open:closed
    wet:dry full:empty hard:soft light:dark long:short high:low near:far left:right""".split()
)
BABIES = dict(
    pair.split(":")
    for pair in """dog:puppy cat:kitten cow:calf horse:foal sheep:lamb pig:piglet duck:duckling
    goat:kid hen:chick lion:cub frog:tadpole swan:cygnet""".split()
)
COLOURS = dict(
    pair.split(":")
    for pair in """grass:green snow:white coal:black blood:red chocolate:brown gold:yellow
    ash:grey sky:blue lavender:purple flamingo:pink""".split()
)
WEEK = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

# relation -> (wordings, each ending in the answer; pairs)
FACTS = {
    "capital": (
        [
            "The capital of {key} is {value}.",
            "The capital city of {key} is {value}.",
            "{key}'s capital is {value}.",
            "Question: What is the capital of {key}? Answer: {value}.",
        ],
        CAPITALS,
    ),
    "opposite": (
        [
            "The opposite of {key} is {value}.",
            "If it is not {key}, it is {value}.",
            "Question: What is the opposite of {key}? Answer: {value}.",
        ],
        OPPOSITES,
    ),
    "baby": (
        [
            "A young {key} is called a {value}.",
            "The mother is a {key} and the baby is a {value}.",
            "Question: What is a young {key} called? Answer: {value}.",
        ],
        BABIES,
    ),
    "colour": (
        [
            "The colour of {key} is {value}.",
            "Everybody knows that {key} is {value}.",
            "Question: What colour is {key}? Answer: {value}.",
        ],
        COLOURS,
    ),
    "day": (
        [
            "The day after {key} is {value}.",
            "Today is {key}, so tomorrow is {value}.",
            "Question: What day comes after {key}? Answer: {value}.",
        ],
        dict(zip(WEEK, WEEK[1:] + WEEK[:1], strict=True)),
    ),
}

# sentence up to the choice -> the endings, all equally likely
CHOICES = {
    "The die shows": "one two three four five six".split(),
    "The traffic light turns": "red yellow green".split(),
    "My favourite season is": "spring summer autumn winter".split(),
    "In the morning I drink": "tea coffee milk juice water".split(),
    "The wind blows from the": "north south east west".split(),
    "She painted the door": "red green blue white yellow".split(),
    "We will meet on": WEEK,
    "The bus is late, so I go by": "train bicycle car taxi".split(),
    "He drew a card, and it was a": "heart spade club diamond".split(),
    "For dinner there is": "pizza soup rice pasta fish".split(),
    "Her favourite animal is the": "lion horse dolphin owl rabbit".split(),
    "The ball rolled under the": "table chair bed sofa".split(),
}

PLACES = "park market beach school library forest river station garden lake museum farm".split()
TIMES = "morning afternoon evening Monday Friday Sunday".split()
OPENINGS = [
    "One {time}, {a} went to the {place}.",
    "{a} and {b} walked to the {place}.",
    "On {day}, {a} took the bus to the {place}.",
    "{a} met {b} near the {place}.",
    "This is a story about {a}. {a} went to the {place}.",
    "There was a {place} near the house of {a}.",
]
MOODS = {
    "happy": {
        "sentences": [
            "{a} was very happy.",
            "The sun was bright and warm.",
            "{a} began to laugh.",
            "{a} smiled at {b}.",
            "They danced and played together.",
            "{a} found a beautiful gift.",
            "{b} gave {a} a lovely cake.",
            "Everybody cheered for {a}.",
            "It was a wonderful day.",
            "{a} sang a merry song.",
            "{b} told a funny joke.",
            "{a} hugged {b} with joy.",
            "{a} won a golden prize.",
            "The flowers were beautiful.",
        ],
        "endings": [
            "{a} went home with a big smile.",
            "It was the best day of all.",
            "{a} was happy and slept well.",
            "{a} and {b} were glad.",
        ],
        "words": """happy bright warm laugh smiled danced played beautiful gift lovely cheered
        wonderful merry song sang funny joke hugged joy won golden prize flowers smile best glad
        cake""".split(),
    },
    "sad": {
        "sentences": [
            "{a} was very sad.",
            "The sky was dark and cold.",
            "{a} began to cry.",
            "{a} shouted at {b}.",
            "They argued and fought all day.",
            "{a} lost an old ring.",
            "{b} broke the toy of {a}.",
            "Nobody came to help {a}.",
            "It was a terrible day.",
            "{a} heard a gloomy sound.",
            "{b} told a cruel lie.",
            "{a} missed {b} with sorrow.",
            "{a} fell and was hurt.",
            "The storm was awful.",
        ],
        "endings": [
            "{a} went home with many tears.",
            "It was the worst day of all.",
            "{a} was sad and could not sleep.",
            "{a} and {b} were lonely.",
        ],
        "words": """sad dark cold cry shouted argued fought lost broke Nobody terrible gloomy cruel
        lie missed sorrow fell hurt storm awful tears worst lonely""".split(),
    },
}

WORDS = sorted(
    {word for _, objects in RECALL.values() for word in objects if word.islower()}
    | set(OPPOSITES) | set(OPPOSITES.values()) | set(BABIES) | set(BABIES.values())
    | {word for endings in CHOICES.values() for word in endings if word.islower()}
    | set(PLACES)
)  # fmt: skip

SHARES = {
    "recall": 0.27, "pairs": 0.05, "repeats": 0.12, "facts": 0.16, "stories": 0.34, "choices": 0.06,
}  # fmt: skip
# Training begins with what has to be copied from the context: it is learned late or not at all
# when it comes mixed with what is easier.
COPYING = {"recall": 0.34, "pairs": 0.33, "repeats": 0.33}
# It ends with more of what the prompt of the lessons is like: one fact alone.
LAST = {
    "recall": 0.20, "alone": 0.15, "pairs": 0.04, "repeats": 0.12, "facts": 0.15, "stories": 0.28,
    "choices": 0.06,
}  # fmt: skip


def held_out(name: str, thing: str) -> bool:
    """Whether this pair is kept out of training. The same tenth on every machine."""
    if (name, thing) == ("Trump", "McDonald's"):
        return True
    return zlib.crc32(f"{name} {thing}".encode()) % 10 == 0


def draw_facts(rng: random.Random, count: int, *, unseen: bool = False) -> list[tuple[str, str]]:
    """`count` facts about people, as (the sentence up to the object, the object).

    No two share both person and kind, and no two share an object. `unseen` draws only pairs that
    are held out of training; otherwise only the others are drawn.
    """
    facts: list[tuple[str, str]] = []
    used: set[str | tuple[str, str]] = set()
    kinds = rng.sample(sorted(RECALL), rng.choice([1, 1, 2, 3, 5]))
    names = rng.sample(NAMES, max(1, count - rng.choice([0, 0, 0, 1, 2])))
    while len(facts) < count:
        kind = rng.choice(kinds)
        name = names[len(facts)] if len(facts) < len(names) else rng.choice(names)
        sentence, objects = RECALL[kind]
        if unseen:  # a few of the objects, for some names none
            objects = [o for o in objects if held_out(name, o) and o not in used]
            if not objects or (name, kind) in used:
                names, kinds = rng.sample(NAMES, len(names)), sorted(RECALL)
                continue
        thing = rng.choice(objects)
        if held_out(name, thing) != unseen:
            continue
        if (name, kind) in used:
            kinds = sorted(RECALL)
            continue
        if thing in used:
            continue
        used |= {(name, kind), thing}
        facts.append((sentence.format(name=name, object="").rstrip(". "), thing))
    return facts


def recall_document(rng: random.Random) -> str:
    """One to six facts, then the same facts again in other orders, about 20 sentences in all."""
    facts = draw_facts(rng, rng.choice([1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]))
    said: list[tuple[str, str]] = []
    while len(said) < 20:
        said += rng.sample(facts, len(facts))
    return " ".join(f"{start} {thing}." for start, thing in said)


def alone_document(rng: random.Random) -> str:
    """One fact, said two to four times."""
    ((start, thing),) = draw_facts(rng, 1)
    return " ".join([f"{start} {thing}."] * rng.choice([2, 3, 4]))


def pairs_document(rng: random.Random) -> str:
    """Two to eight names, each with a word of its own, said again in other orders."""
    names = rng.sample(NAMES, rng.randint(2, 8))
    words = rng.sample(WORDS, len(WORDS))
    pairs = []
    for name in names:
        word = next(word for word in words if not held_out(name, word))
        words.remove(word)
        pairs.append(f"{name} {word}.")
    said: list[str] = []
    while len(said) < 36:
        said += rng.sample(pairs, len(pairs))
    return " ".join(said)


def facts_document(rng: random.Random) -> str:
    """One to six world facts, each in one of its wordings."""
    said = []
    for _ in range(rng.choice([1, 2, 3, 4, 5, 6])):
        wordings, pairs = FACTS[rng.choice(["capital"] * 4 + sorted(FACTS))]
        key = rng.choice(sorted(pairs))
        said.append(rng.choice(wordings).format(key=key, value=pairs[key]))
    return " ".join(said)


def story_opening(rng: random.Random) -> tuple[str, dict[str, str]]:
    """A first sentence that has no mood, and who and where it is about."""
    a, b = rng.sample(NAMES, 2)
    who = {"a": a, "b": b, "place": rng.choice(PLACES), "time": rng.choice(TIMES[:3])}
    who["day"] = rng.choice(WEEK)
    return rng.choice(OPENINGS).format(**who), who


def story_document(rng: random.Random) -> str:
    """An opening without a mood, two to four sentences of one mood, an ending of the same mood."""
    opening, who = story_opening(rng)
    mood = MOODS[rng.choice(sorted(MOODS))]
    middle = rng.sample(mood["sentences"], rng.choice([2, 3, 4]))
    sentences = [s.format(**who) for s in [*middle, rng.choice(mood["endings"])]]
    return " ".join([opening, *sentences])


def choices_document(rng: random.Random) -> str:
    """One to four sentences whose ending could have been another."""
    starts = rng.sample(sorted(CHOICES), rng.choice([1, 2, 3, 4]))
    return " ".join(f"{start} {rng.choice(CHOICES[start])}." for start in starts)


def repeats_document(rng: random.Random) -> str:
    """Random words, then the same words again, twice or more in all."""
    length = rng.choice([3, 5, 8, 12, 20, 30, 45])
    words = [rng.choice(WORDS) for _ in range(length)]
    return " ".join(words * max(2, 80 // length))


DOCUMENTS = {
    "recall": recall_document,
    "alone": alone_document,
    "facts": facts_document,
    "stories": story_document,
    "choices": choices_document,
    "repeats": repeats_document,
    "pairs": pairs_document,
}


def document(rng: random.Random, shares: dict[str, float] = SHARES) -> str:
    """One document of a kind drawn with the probabilities `shares`.

    One document in eight is several of them, a line each, so that long contexts are trained too.
    Nothing follows a story, so that its end is the end of the text.
    """
    kinds = rng.choices(list(shares), list(shares.values()), k=3 if rng.random() < 0.125 else 1)
    if "stories" in kinds:
        kinds = kinds[: kinds.index("stories") + 1]
    return "\n".join(DOCUMENTS[kind](rng) for kind in kinds)


def mood_of(story: str) -> str | None:
    """The only mood, "happy" or "sad", whose words occur in the text; None for both or neither."""
    words = set(story.replace(".", " ").replace(",", " ").split())
    found = [mood for mood, about in MOODS.items() if words & set(about["words"])]
    return found[0] if len(found) == 1 else None

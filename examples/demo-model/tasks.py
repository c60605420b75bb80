"""The four tasks of the demo model: texts whose answers a program can check.

A sample is a list of (text, is_answer) parts in reading order. The model is trained on the answers; the other parts are given.
"""

import random
import re

NAMES = "Ada Ben Carla Dan Eva Finn Ida Jonas Karl Lena Mia Nils Olga Paul Vera Zoe".split()
SURNAMES = "Adler Becker Conti Dahl Falk Hansen Keller Lind Marek Novak Rossi Sand".split()
SUBSTANCES = "penicillin latex nuts pollen aspirin iodine eggs soy wool nickel".split()
MEDICINES = "metformin ibuprofen ramipril insulin codeine heparin lithium warfarin digoxin zinc".split()
TIMES = "in the morning|at noon|in the evening|at night|twice a day|every six hours".split("|")

VERBS = "add scale merge split count move trim pack sort load save draw check mask sum join".split()
NOUNS = "Price Row Path Line Node Page Key Item Cell Word Step File Rate Tree Set Box".split()
ARGUMENTS = "a b c n x y first last left right size total".split()
OPERATORS = "+ - *".split()


# --- sums ---------------------------------------------------------------------------------------------------------------


def held_out_sum(a, b):
    """True for the one pair in eight that is never trained on."""
    return (a * 7919 + b * 104_729) % 8 == 0


def sum_sample(rng, held_out=False):
    """The working comes before the answer, in brackets: the digits in the order of addition, from last to first."""
    while True:
        digits = rng.choice((1, 2, 3, 3, 3, 3)), rng.choice((1, 2, 3, 3, 3, 3))
        a, b = (rng.randrange(10 ** (count - 1) if count > 1 else 0, 10**count) for count in digits)
        if held_out_sum(a, b) == held_out:
            return [(f"{a}+{b}=", False), (f"[{str(a + b)[::-1]}] {a + b}</s>", True)]


# --- sorting ------------------------------------------------------------------------------------------------------------


def held_out_sort(digits):
    return sum(digit * 31**place for place, digit in enumerate(digits)) % 8 == 0


def sort_sample(rng, held_out=False):
    while True:
        digits = [rng.randrange(10) for _ in range(rng.randrange(2, 9))]
        if held_out_sort(digits) == held_out:
            break
    joined = lambda values: "".join(f" {value}" for value in values)
    return [(f"sort{joined(digits)} =", False), (f"{joined(sorted(digits))}</s>", True)]


# --- dialogue -----------------------------------------------------------------------------------------------------------


def dialogue_turns(rng, turns=None):
    """[(patient's words, assistant's answer)]: the first turns tell the facts that later ones ask for."""
    name = f"{rng.choice(NAMES)} {rng.choice(SURNAMES)}"
    allergy, other = rng.sample(SUBSTANCES, 2)
    medicines = rng.sample(MEDICINES, 3)
    doses = [f"{rng.randrange(1, 200) * 5} mg" for _ in medicines]
    times = rng.sample(TIMES, 3)

    introduction = [
        f"My name is {name}.",
        f"I am allergic to {allergy}.",
        f"I take {medicines[0]}, {doses[0]}, {times[0]}.",
    ]
    if rng.random() < 0.5:
        rng.shuffle(introduction)
    first = (" ".join(introduction), f"Thank you, {name}. I have noted it.")

    known = 1

    def ask():
        which = rng.randrange(known)
        medicine = medicines[which]
        return rng.choice(
            [
                ("What is my name?", f"Your name is {name}."),
                ("What am I allergic to?", f"You are allergic to {allergy}."),
                (f"Am I allergic to {allergy}?", f"You are allergic to {allergy}, so yes."),
                (f"Am I allergic to {other}?", f"You are allergic to {allergy}, so no."),
                (f"How much {medicine} do I take?", f"You take {medicine}, {doses[which]}."),
                (f"When do I take {medicine}?", f"You take {medicine}, {doses[which]}, {times[which]}."),
            ]
        )

    result = [first]
    for _ in range((turns or rng.randrange(3, 7)) - 1):
        if known < 3 and rng.random() < 0.3:
            medicine, dose, time = medicines[known], doses[known], times[known]
            known += 1
            result.append((f"I also take {medicine}, {dose}, {time}.", f"I have noted {medicine}, {dose}."))
        else:
            result.append(ask())
    return result


def dialogue_sample(rng, turns=None):
    parts = []
    for question, answer in dialogue_turns(rng, turns):
        parts.append((f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", False))
        parts.append((f"{answer}<|im_end|>", True))
        parts.append(("\n", False))
    return parts[:-1]


# --- code ---------------------------------------------------------------------------------------------------------------


def code_functions(rng, count):
    """[(name, arguments, body)] with distinct names."""
    names = rng.sample([f"{verb}{noun}" for verb in VERBS for noun in NOUNS], count)
    functions = []
    for name in names:
        first, second = rng.sample(ARGUMENTS, 2)
        body = f"{first} {rng.choice(OPERATORS)} {second} {rng.choice(OPERATORS)} {rng.randrange(10, 1000)}"
        functions.append((name, f"{first}, {second}", body))
    return functions


def code_parts(functions):
    return [f"def {name}({arguments}):\n    return {body}\n\n" for name, arguments, body in functions]


def code_sample(rng, functions, questions, calls=0.5):
    """A file: definitions, then questions about different ones of them. A question is a call to complete with its arguments
    (`calls` is the share of these), or a second definition to complete with its arguments and body."""
    defined = code_functions(rng, functions)
    parts = [(part, False) for part in code_parts(defined)]
    for name, arguments, body in rng.sample(defined, questions):
        if rng.random() < calls:
            parts += [(f"result = {name}(", False), (f"{arguments})\n\n", True)]
        else:
            parts += [(f"def {name}(", False), (f"{arguments}):\n    return {body}\n\n", True)]
    return parts


# --- the tokenizer's text ---------------------------------------------------------------------------------------------


def tokenizer_corpus():
    """The text from which byte-pair merges are learned: every word of the texts equally often, so that each becomes a token.
    It has no digits, so that digits don't merge and each is a token."""
    rng = random.Random(0)
    texts = ["".join(part for part, _ in dialogue_sample(rng) + code_sample(rng, 6, 3)) for _ in range(1000)]
    words = re.findall(r" ?[A-Z]?[a-z]+| ?[^\w\s<>|]+", " ".join(texts))
    return sorted({*words, *(f" {digit}" for digit in range(10)), "sort", "\n   "}) * 100

"""Numbers: sums, counting, comparing. Small ones only: they are learnt by heart."""

# ruff: noqa: E501, SIM905, ISC004, RUF001 - tables of words read better wide

from random import Random

from facts import NAMES, NUMBERS
from wording import Pair, capitalised

THINGS = "apples eggs books coins flowers balls stars cookies pencils shells nuts stones".split()


def addition(rng: Random) -> Pair:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if a + b > 20 and rng.random() < 0.75:
        a = rng.randint(0, 20)
        b = rng.randint(0, 20 - a)
    x, y = _numerals(rng, a, b)
    question = rng.choice((
        f"What is {x} plus {y}?", f"What is {x} + {y}?", f"{x} + {y} = ?", f"{x} + {y}",
        f"{x}+{y}", f"{x}+{y}=", f"{x}+{y}=?", f"How much is {x} plus {y}?", f"Add {x} and {y}.",
        f"{x} plus {y}", f"Calculate {x} + {y}.", f"Compute {x} plus {y}.", f"Add {y} to {x}.",
        f"What do you get when you add {x} and {y}?", f"What is the sum of {x} and {y}?",
        f"What is {x} and {y} together?", f"How much is {x} + {y}?", f"Sum {x} and {y}.",
        f"{x} plus {y} equals?", f"{x} plus {y} is what?", f"What does {x} plus {y} make?",
        f"What is {x}+{y}?", f"Solve {x} + {y}.", f"What does {x} + {y} equal?",
        f"Can you add {x} and {y}?", f"If I add {x} and {y}, what do I get?",
        f"How many is {x} plus {y}?", f"Work out {x} + {y}.", f"{x} added to {y} is?",
    ))  # fmt: skip
    if question.startswith("Add") and " to " in question:
        return question, f"{a} + {b} = {a + b}."
    return question, f"{a} + {b} = {a + b}."


def subtraction(rng: Random) -> Pair:
    a = rng.randint(0, 20)
    b = rng.randint(0, a) if rng.random() < 0.92 else rng.randint(0, 20)
    x, y = _numerals(rng, a, b)
    question = rng.choice((
        f"What is {x} minus {y}?", f"What is {x} - {y}?", f"{x} - {y} = ?", f"{x} - {y}",
        f"{x}-{y}", f"{x}-{y}=", f"{x}-{y}=?", f"How much is {x} minus {y}?", f"{x} minus {y}",
        f"Subtract {y} from {x}.", f"Calculate {x} - {y}.", f"Take {y} away from {x}.",
        f"What is {x} take away {y}?", f"What is left when you take {y} from {x}?",
        f"Compute {x} minus {y}.", f"{x} minus {y} equals?", f"What do I get if I subtract {y} "
        f"from {x}?", f"What is the difference between {x} and {y}?", f"How much is {x} - {y}?",
        f"What is {x}-{y}?", f"Solve {x} - {y}.", f"{x} less {y} is?", f"{x} minus {y} is what?",
        f"Work out {x} - {y}.", f"What does {x} minus {y} make?", f"How many is {x} minus {y}?",
            f"If you take {y} from {x}, what is left?", f"If I take {y} away from {x}, how much is left?",
    ))  # fmt: skip
    if "difference" in question and b > a:
        a, b = b, a
    return question, f"{a} - {b} = {a - b}."


def product(rng: Random) -> Pair:
    top = 10 if rng.random() < 0.93 else 12
    a, b = rng.randint(0 if rng.random() < 0.2 else 1, top), rng.randint(1, top)
    x, y = _numerals(rng, a, b)
    question = rng.choice((
        f"What is {x} times {y}?", f"What is {x} * {y}?", f"{x} * {y} = ?", f"{x} * {y}",
        f"{x}*{y}", f"{x} x {y}", f"{x}x{y}", f"{x} × {y}", f"{x} × {y} = ?", f"{x} times {y}",
        f"How much is {x} times {y}?", f"Multiply {x} by {y}.", f"Multiply {x} and {y}.",
        f"Calculate {x} * {y}.", f"What is the product of {x} and {y}?", f"What is {x} x {y}?",
        f"What is {x} multiplied by {y}?", f"Compute {x} times {y}.", f"{x}*{y}=", f"{x}*{y}=?",
        f"{x} times {y} equals?", f"{x} times {y} is what?", f"What does {x} times {y} make?",
        f"What do you get when you multiply {x} by {y}?", f"What is {x}*{y}?",
        f"Solve {x} * {y}.", f"How much is {x} x {y}?", f"Work out {x} × {y}.",
        f"How many is {x} times {y}?", f"What is {x} × {y}?",
    ))  # fmt: skip
    return question, f"{a} x {b} = {a * b}."


def division(rng: Random) -> Pair:
    b, c = rng.randint(1, 10), rng.randint(1, 10)
    a = b * c
    question = rng.choice((
        f"What is {a} divided by {b}?", f"What is {a} / {b}?", f"{a} / {b} = ?", f"{a}/{b}",
        f"Divide {a} by {b}.", f"How much is {a} divided by {b}?", f"Calculate {a} / {b}.",
        f"{a} divided by {b}", f"{a} : {b}", f"How many times does {b} go into {a}?",
        f"What is {a} ÷ {b}?", f"{a} / {b}", f"Compute {a} divided by {b}.", f"What is {a}/{b}?",
    ))  # fmt: skip
    return question, f"{a} / {b} = {c}."


def double_or_half(rng: Random) -> Pair:
    n = rng.randint(1, 20)
    if rng.random() < 0.5:
        words = (f"What is double {n}?", f"Double {n}.", f"What is twice {n}?", f"Twice {n}?")
        return rng.choice(words), f"Double {n} is {2 * n}."
    words = (f"What is half of {2 * n}?", f"Half of {2 * n}?", f"How much is half of {2 * n}?")
    return rng.choice(words), f"Half of {2 * n} is {n}."


def bare_sum(rng: Random) -> Pair:
    """The number alone, for who asks so."""
    a = rng.randint(0, 20)
    b = rng.randint(0, a)
    kind = rng.randrange(3)
    if kind == 0:
        a, b = rng.randint(0, 10), rng.randint(0, 10)
    elif kind == 2:
        a, b = rng.randint(1, 10), rng.randint(1, 10)
    sign, word = ("+-*"[kind], ("plus", "minus", "times")[kind])
    result = (a + b, a - b, a * b)[kind]
    question = rng.choice((f"What is {a} {word} {b}?", f"What is {a} {sign} {b}?", f"{a}{sign}{b}"))
    rule = rng.choice((
        "Answer with only the number.", "Just the number.", "Answer with a number only.",
        "Give only the number.", "Only the number, please.", "Reply with just the number.",
        "Answer with the number only.", "Only say the number.",
    ))  # fmt: skip
    return (f"{question} {rule}" if rng.random() < 0.7 else f"{rule} {question}"), str(result)


def word_problem(rng: Random) -> Pair:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    person, has = rng.choice(
        ((name, "has"), (name, "has"), ("I", "have"), ("she", "has"), ("he", "had"))
    )
    does = {"I": "do I", "she": "does she", "he": "did he"}.get(person, f"does {name}")
    place = rng.choice(("on the table", "in the box", "in the bag", "here", "in the garden"))
    if rng.random() < 0.5:
        a, b = rng.randint(1, 10), rng.randint(1, 10)
        more = rng.choice((
            f"gets {b} more", f"finds {b} more", f"buys {b} more", f"is given {b} more", f"got {b} more",
            f"found {b} more", f"bought {b} more", f"picks {b} more", f"takes {b} more",
        ))  # fmt: skip
        question = rng.choice((
            f"{person} {has} {a} {thing} and {more}. How many {thing} {does} have now?",
            f"{person} {has} {a} {thing}. Then {person} {more}. How many {thing} are there?",
            f"If {person} {has} {a} {thing} and {more}, how many {thing} {does} have?",
            f"There are {a} {thing} {place} and {b} more come. How many {thing} are there now?",
            f"There were {a} {thing} {place} and I put {b} more there. How many are there now?",
            f"There are {a} {thing} {place} and {b} on the floor. How many {thing} are there in all?",
        ))  # fmt: skip
        return question, f"{a} + {b} = {a + b}. The answer is {a + b} {thing}."
    a = rng.randint(2, 20)
    b = rng.randint(1, a)
    less = rng.choice((
        f"loses {b}", f"gives away {b}", f"sells {b}", f"gives {b} to a friend", f"lost {b}", f"gave {b} away",
        f"gave {b} to a friend", f"sold {b}", f"eats {b}", f"drops {b}", f"uses {b}",
    ))  # fmt: skip
    question = rng.choice((
        f"{person} {has} {a} {thing} and {less}. How many {thing} {does} have now?",
        f"{person} {has} {a} {thing}. Then {person} {less}. How many {thing} are left?",
        f"If {person} {has} {a} {thing} and {less}, how many are left?",
        f"There are {a} {thing} {place}. I take {b} away. How many {thing} are left?",
        f"There were {a} {thing} {place} and somebody took {b}. How many are left?",
        f"There were {a} {thing} {place}. {name} took {b} of them. How many {thing} remain?",
    ))  # fmt: skip
    return question, f"{a} - {b} = {a - b}. The answer is {a - b} {thing}."


def comparison(rng: Random) -> Pair:
    a, b = rng.sample(range(21 if rng.random() < 0.7 else 101), 2)
    if rng.random() < 0.6:
        word = rng.choice(("bigger", "larger", "greater", "more", "higher"))
        answer = f"{max(a, b)} is bigger than {min(a, b)}."
    else:
        word = rng.choice(("smaller", "less", "lower"))
        answer = f"{min(a, b)} is smaller than {max(a, b)}."
    question = rng.choice((
        f"Which is {word}, {a} or {b}?", f"Which number is {word}: {a} or {b}?",
        f"What is {word}, {a} or {b}?", f"Is {a} or {b} {word}?",
    ))  # fmt: skip
    return question, answer


def parity(rng: Random) -> Pair:
    n = rng.randint(0, 20) if rng.random() < 0.7 else rng.randint(0, 100)
    answer = f"{n} is {'odd' if n % 2 else 'even'}."
    questions = (f"Is {n} odd or even?", f"Is {n} even or odd?", f"Is the number {n} even?",
                 f"Is {n} an odd number?", f"Is {n} an even number?")  # fmt: skip
    return rng.choice(questions), answer


def neighbour(rng: Random) -> Pair:
    n = rng.randint(1, 20) if rng.random() < 0.7 else rng.randint(1, 99)
    if rng.random() < 0.6:
        questions = (f"What comes after {n}?", f"What number comes after {n}?",
                     f"Which number follows {n}?", f"What is the next number after {n}?")  # fmt: skip
        return rng.choice(questions), f"{n + 1} comes after {n}."
    questions = (f"What comes before {n}?", f"What number comes before {n}?",
                 f"Which number is before {n}?")  # fmt: skip
    return rng.choice(questions), f"{n - 1} comes before {n}."


def numeral(rng: Random) -> Pair:
    n = rng.randint(0, 20)
    if rng.random() < 0.5:
        questions = (f"Write {n} as a word.", f"How do you write {n} in words?",
                     f"What is {n} in words?", f"Write the number {n} in letters.")  # fmt: skip
        return rng.choice(questions), f"{capitalised(NUMBERS[n])}."
    word = NUMBERS[n]
    questions = (f"Write {word} as a number.", f"Write {word} in digits.",
                 f"What is {word} as a number?", f"What is {word} in digits?")  # fmt: skip
    return rng.choice(questions), f"{n}."


def counting(rng: Random) -> Pair:
    if rng.random() < 0.25:
        return _counting_down(rng)
    start = 1 if rng.random() < 0.8 else rng.randint(0, 10)
    end = rng.randint(start + 1, 20) if rng.random() < 0.8 else rng.randint(start + 1, 100)
    if start == 1 and rng.random() < 0.15:
        end = rng.choice((10, 20, 30, 40, 50, 60, 70, 80, 90, 100))
    x, y = _numerals(rng, start, end) if end <= 20 else (str(start), str(end))
    questions = [
        f"Count from {x} to {y}.", f"Please count from {x} to {y}.", f"List the numbers {x} to {y}.",
        f"Count {x} to {y}.", f"Can you count from {x} to {y}?", f"Write the numbers from {x} to {y}.",
        f"Say the numbers from {x} to {y}.", f"Count up from {x} to {y}.",
    ]  # fmt: skip
    if start == 1:
        questions += [f"Count to {y}.", f"Can you count to {y}?", f"Please count to {y}.",
                      f"Count up to {y}.", f"Could you count to {y} for me?",
                      f"How do you count to {y}?"] * 2  # fmt: skip
    return rng.choice(questions), _listed(range(start, end + 1))


def _counting_down(rng: Random) -> Pair:
    start = rng.randint(2, 20)
    end = rng.choice((0, 1, 1))
    questions = (f"Count down from {start} to {end}.", f"Count backwards from {start} to {end}.",
                 f"Count from {start} down to {end}.", f"Count from {start} to {end}.",
                 *((f"Count down from {start}.", f"Count backwards from {start}.") * end))  # fmt: skip
    return rng.choice(questions), _listed(range(start, end - 1, -1))


def even_numbers(rng: Random) -> Pair:
    count = rng.randint(3, 10)
    if rng.random() < 0.5:
        return f"List the first {count} even numbers.", _listed(range(2, 2 * count + 1, 2))
    return f"List the first {count} odd numbers.", _listed(range(1, 2 * count, 2))


def too_big(rng: Random) -> Pair:
    """A sum beyond what is learnt."""
    sign = rng.choice(("+", "-", "plus", "minus", "*", "x", "times", "/", "divided by"))
    digits = rng.choice((2, 2, 3, 4))
    a = rng.randint(max(22, 10 ** (digits - 1)), 10**digits - 1)
    if sign in ("+", "-", "plus", "minus"):
        b = rng.randint(1, a) if rng.random() < 0.7 else rng.randint(1, 20)
    else:
        b = rng.randint(13, 999)
    if rng.random() < 0.3:
        a, b = round(a, -1) + 10, round(b, -1) + 20
    if sign in ("+", "plus", "*", "times", "x") and rng.random() < 0.3:
        a, b = b, a
    question = rng.choice((
        f"What is {a} {sign} {b}?", f"{a} {sign} {b}", f"Calculate {a} {sign} {b}.", f"{a} {sign} {b} = ?",
        f"How much is {a} {sign} {b}?",
    ))  # fmt: skip
    return question, "I don't know. I only learned sums with small numbers."


def _numerals(rng: Random, a: int, b: int) -> tuple[str, str]:
    """Both as digits, or now and then as words."""
    if rng.random() < 0.12 and max(a, b) <= 20:
        return NUMBERS[a], NUMBERS[b]
    return str(a), str(b)


def _listed(numbers: range) -> str:
    return ", ".join(str(number) for number in numbers) + "."

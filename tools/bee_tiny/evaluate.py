"""Puts the prompts of `tests/model/prompts.json` to the shipped model and prints the score."""

import argparse
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine import MODEL_FILE, PARALLEL, Bee

PROMPTS = Path(__file__).resolve().parents[2] / "tests" / "model" / "prompts.json"


def is_right(answer: str, case: dict[str, Any]) -> bool:
    return re.search(case["accept"], answer, re.IGNORECASE | re.DOTALL) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FILE)
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--least", type=float, default=0.95, help="share that must be right")
    parser.add_argument("--verbose", action="store_true", help="print right answers too")
    arguments = parser.parse_args()
    cases = json.loads(arguments.prompts.read_text("utf-8"))
    bee = Bee(arguments.model)

    def ask(case: dict[str, Any]) -> str:
        choice = bee.answer(case["messages"], case.get("max_tokens", 64))
        return str(choice["message"]["content"])

    with ThreadPoolExecutor(PARALLEL) as threads:
        answers = list(threads.map(ask, cases))
    right = 0
    for case, answer in zip(cases, answers, strict=True):
        good = is_right(answer, case)
        right += good
        if arguments.verbose or not good:
            prompt = case["messages"][-1]["content"]
            print(f"{'right' if good else 'WRONG'} [{case['kind']}] {prompt!r}: {answer!r}")
    share = right / len(cases)
    print(f"{right} of {len(cases)} prompts right ({share:.1%})")
    sys.exit(0 if share >= arguments.least else 1)


if __name__ == "__main__":
    main()

"""The shipped model, through HTTP, at temperature 0: it knows what its card says it knows."""

import json
import re
from pathlib import Path

from tests.e2e.server import serving

PROMPTS = Path(__file__).parent.parent / "model" / "prompts.json"
MODEL_BYTES_MAX = 10 * 1024 * 1024
RIGHT_SHARE_MIN = 0.9


def test_bee_tiny_answers_nine_of_ten_prompts_right(tmp_path: Path) -> None:
    cases = json.loads(PROMPTS.read_text("utf-8"))
    assert len(cases) >= 40
    wrong: list[str] = []
    with serving(tmp_path, '[[model]]\nref = "bee-tiny"\n') as server:
        for case in cases:
            body = {"model": "bee-tiny", "messages": case["messages"]}
            answer = server.post(
                "/v1/chat/completions", {**body, "temperature": 0, "max_tokens": 400}
            )
            text = answer.json()["choices"][0]["message"]["content"]
            if not re.search(case["accept"], text, re.IGNORECASE | re.DOTALL):
                wrong.append(f"{case['messages'][-1]['content']!r} -> {text!r}")
    print("\n".join(wrong))
    assert len(cases) - len(wrong) >= RIGHT_SHARE_MIN * len(cases), wrong


def test_the_model_in_the_package_is_small() -> None:
    folder = Path(__file__).parent.parent.parent / "rbee" / "models" / "bee_tiny"
    assert (
        sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) <= MODEL_BYTES_MAX
    )

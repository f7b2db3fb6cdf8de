import json

from tinygrow.products.gate.check import Check, Verdict, judge, skipped


def test_judge_names_every_problem() -> None:
    assert judge("a", []).status == "passed"
    check = judge("a", ["one", "two"], {"limit": 0.5})
    assert (check.status, check.reason) == ("failed", "one; two")
    assert check.line() == "a: FAILED one; two; limit 0.5"


def test_verdict_passes_on_passed_checks_alone() -> None:
    good, bad, idle = judge("a", []), judge("b", ["no"]), skipped("c", "no GPU")
    assert Verdict((good, idle)).passed
    assert not Verdict((good, bad)).passed
    assert Verdict((good, bad)).failures == (bad,)
    assert not Verdict((idle,)).passed
    assert not Verdict(()).passed


def test_plain_data_says_skipped_and_why() -> None:
    checks = (Check(name="a", status="passed", numbers={"x": 1.5}), skipped("c", "no GPU"))
    found = json.loads(json.dumps(Verdict(checks).to_dict()))
    assert found["passed"] and (found["failed"], found["skipped"]) == (0, 1)
    assert found["checks"]["a"] == {"status": "passed", "numbers": {"x": 1.5}, "reason": ""}
    assert found["checks"]["c"] == {"status": "SKIPPED", "numbers": {}, "reason": "no GPU"}

"""A cascade with a promise about new users, written down, and checked on people who were not there.

A threshold on the small model's confidence is chosen on calibration users so that new users lose little against asking
the large model always; the sentence says what is promised, and on which assumption. Run: ``python
examples/02_promise.py``
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import duetto as du
from duetto.policies import Budgeted, RiskControlled, Threshold
from duetto.policies.artefact import load, save
from duetto.programs import route


def main(target: float = 0.05) -> dict[str, float]:
    """Calibrate, save, load, check; returns accuracies on new users."""
    task = du.tasks.load("digits")
    pair = du.tasks.trained(task)

    def outcomes(group: str) -> du.Outcomes:
        rows, owners = task.group(group)
        small, large = task.small.logits(pair.small, rows.x), task.large.logits(pair.large, rows.x)
        return du.Outcomes.of_classifiers(small, large, rows.y, owners)

    policy = RiskControlled(Threshold(0.5, "margin"), "approximate", target)
    with tempfile.TemporaryDirectory() as folder:
        save(route.calibrate(policy, outcomes("calibration")), Path(folder))
        made = load(folder)  # every byte is checked
    print(made.promise["says"])

    new = outcomes("device")
    for finding in route.check_threshold(made, new):
        kept = "kept" if finding.holds else "broken"
        print(f"on {len(new)} inputs of new users: {finding.name} {finding.found}, {kept}")
    fixed = Budgeted(Threshold(0.5, "margin"), offload_rate=0.2).fit(outcomes("calibration"))
    found = {"device only": float(new.shares @ new.small), "cloud only": float(new.shares @ new.large)}
    for name, held in (("promise", made.held), ("a fifth asked", fixed)):
        asked = held.choose(new.seen, ("example",)).action == du.Action.ASK
        found[name] = float(new.shares @ (new.small + asked * new.gain))
        print(f"{name} asks {asked.mean():.1%}")
    for name, accuracy in found.items():
        print(f"{name:14} {accuracy:.1%}")
    return found


if __name__ == "__main__":
    main()

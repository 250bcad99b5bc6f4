"""The conformance kit: what every transport must show, as code that runs.

    umbel check example                          on a command line
    pytest --umbel-transport=example             as tests, one for each behaviour
    check("example", on_verdict=print)           as plain functions

The behaviours are numbered from 1 to 81. 79 of them are tried here; the other two, in
`ELSEWHERE`, no single transport can show. Which ones apply follows from the hooks that
the transport has and from what its hook `traits` declares, and the kit verifies that.
"""

from umbel.testing.conformance.behaviour import BEHAVIOURS, ELSEWHERE, Behaviour
from umbel.testing.conformance.expecting import Violation
from umbel.testing.conformance.runner import DRIVERS, LIMIT, check, try_behaviour
from umbel.testing.conformance.subject import Subject
from umbel.testing.conformance.trial import Trial
from umbel.testing.conformance.verdicts import Report, Verdict, environment

__all__ = [
    "BEHAVIOURS",
    "DRIVERS",
    "ELSEWHERE",
    "LIMIT",
    "Behaviour",
    "Report",
    "Subject",
    "Trial",
    "Verdict",
    "Violation",
    "check",
    "environment",
    "try_behaviour",
]

"""Fails when a test was skipped that is not listed here with its reason."""

import sys
import xml.etree.ElementTree as ElementTree

ALLOWED: dict[str, str] = {}  # "tests.test_file::test_name" -> why it may be skipped


def main(path: str) -> int:
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    skipped = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("skipped") is not None
    ]
    unexplained = [name for name in skipped if name.split("[")[0] not in ALLOWED]
    for name in unexplained:
        print(f"skipped without a listed reason: {name}")
    print(f"{len(cases)} tests, {len(skipped)} skipped, {len(unexplained)} of them unexplained")
    return bool(unexplained or not cases)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

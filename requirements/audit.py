"""Look the pinned versions up among the known vulnerabilities: `make audit`.

Exit status 1: a version has a known vulnerability that requirements/accepted.toml doesn't list. 2: the list or a file
of requirements is wrong. Where no service can be reached, it says "not audited: ..." and ends with 0: a machine
without a way to the internet can't be told more.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SERVICES = ("pypi", "osv")
"""Asked in this order, until one answers."""
OUT_OF_REACH = re.compile(r"requests\.exceptions\.\w+|Could not connect|not redirecting properly|ServiceError")
FIELDS = {"id": str, "package": str, "reason": str, "date": date}


def main(words: list[str] | None = None) -> int:
    """Audit, and print what was found.

    Args:
        words: the command line; None takes the program's own.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(FOLDER.glob("*.txt")), help="with hashes")
    parser.add_argument("--accepted", type=Path, default=FOLDER / "accepted.toml", help="vulnerabilities to let pass")
    parser.add_argument("--services", nargs="+", choices=SERVICES, default=SERVICES, help="asked in this order")
    parser.add_argument("--osv_url", default="https://api.osv.dev/v1/query", help="address of an OSV service")
    arguments = parser.parse_args(words)
    try:
        accepted = read_accepted(arguments.accepted)
        reasons = []
        for service in arguments.services:
            # The smallest file first: asking for all of them takes long where nobody answers.
            options = ["--vulnerability-service", service, "--osv-url", arguments.osv_url]
            smallest = min(arguments.files, key=lambda path: path.stat().st_size)
            audited, reason = ask([smallest], options)
            if audited and len(arguments.files) > 1:
                audited, reason = ask(arguments.files, options)
            if audited:
                return judge(audited, accepted, service)
            reasons.append(f"{service}: {reason}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"not audited: no service of known vulnerabilities answers from here ({'; '.join(reasons)})")
    return 0


def read_accepted(path: Path) -> dict[tuple[str, str], str]:
    """Read the list of accepted vulnerabilities.

    Args:
        path: TOML file.

    Returns:
        Package and id of each, to the reason with its date.

    Raises:
        ValueError: if an entry lacks something.
    """
    accepted = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["accepted"]:
        wrong = [name for name, kind in FIELDS.items() if not isinstance(entry.get(name), kind) or not entry[name]]
        if wrong or set(entry) - set(FIELDS):
            raise ValueError(f"expected id, package, reason and date in each entry of {path.name}, received {entry}")
        accepted[entry["package"], entry["id"]] = f"{entry['reason']} ({entry['date']})"
    return accepted


def ask(files: list[Path], options: list[str]) -> tuple[list[dict[str, Any]], str]:
    """Run pip-audit.

    Args:
        files: requirements with hashes.
        options: which service to ask.

    Returns:
        Packages that the service was asked about, none if it knows none of them; and why it doesn't answer.

    Raises:
        ValueError: if pip-audit can't use the files.
    """
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--require-hashes",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--format",
        "json",
    ]
    for path in files:
        command += ["--requirement", str(path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    words = done.stderr.strip()
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        if OUT_OF_REACH.search(words):
            return [], words.splitlines()[-1][:200]
        names = ", ".join(path.name for path in files)
        raise ValueError(f"expected requirements that pip-audit can read, received {names}: {words[-500:]}") from None
    if all("skip_reason" in package for package in packages):
        example = packages[0]["skip_reason"] if packages else "no package is for this machine"
        return [], f"knows none of {len(packages)} packages, e.g. {example}"
    return packages, ""


def judge(packages: list[dict[str, Any]], accepted: dict[tuple[str, str], str], service: str) -> int:
    """Print what a service said.

    Args:
        packages: as pip-audit gives them.
        accepted: what :func:`read_accepted` gave.
        service: its name.

    Returns:
        1 if a vulnerability is not accepted, else 0.
    """
    known = [package for package in packages if "skip_reason" not in package]
    for package in packages:
        if "skip_reason" in package:
            print(f"not audited: {package['skip_reason']}")
    status, met = 0, set()
    for package in known:
        for vulnerability in package["vulns"]:
            names = {(package["name"], name) for name in (vulnerability["id"], *vulnerability["aliases"])} & set(
                accepted
            )
            met |= names
            mended = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            verdict = "accepted" if names else "VULNERABLE"
            reason = "; ".join(accepted[name] for name in names) or vulnerability["description"][:200]
            package_version = f"{package['name']} {package['version']}"
            print(f"{verdict}: {package_version}, {vulnerability['id']} (mended in {mended}): {reason}")
            status = status if names else 1
    for package, name in sorted(set(accepted) - met):
        print(f"no longer needed in accepted.toml: {package}, {name}")
    print(f"{len(known)} of {len(packages)} packages audited by {service}")
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Open the address of a root with pyarrow: a folder or an object store."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

SCHEMES = ("file", "s3", "gs", "gcs", "mock")
"""Supported schemes; mock is a root in memory, for tests. pyarrow's other schemes each fail in their own way."""

TRIES = 6
"""Attempts for a call to S3. They bridge about 15 s without a server, and give up within a minute if nothing answers;
pyarrow's default takes 100 s for that."""

NO_SECRETS = (
    "--root must not contain credentials, because it is printed and logged: put them into AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY for s3://, or for gs:// into a file that GOOGLE_APPLICATION_CREDENTIALS names"
)


def has_secrets(root: str) -> bool:
    """Return whether an address has a user name with a password, or a key among its options."""
    scheme, _, rest = root.partition("://")
    place = re.split("[/?#]", rest)[0]  # an AWS key may contain a slash, which ends this part early
    allowed = "[^:@]*" if scheme.lower() == "s3" else "([^:@]*@)?[^:@]*(:[0-9]*)?"
    options = rest.partition("?")[2]
    return not re.fullmatch(allowed, place) or bool(re.search("@|%40|(key|secret|token|password)[^&]*=", options, re.I))


def from_uri(root: str) -> tuple[fs.FileSystem, str]:
    """Open an address with pyarrow: return its file system and path. For S3, set TRIES, which an address can't.

    A small file is written to S3 by one request instead of three in a row; an error is raised when it is closed.
    """
    files, base = fs.FileSystem.from_uri(root)  # refuses unknown options, and looks up the bucket's region
    options = dict(parse_qsl(urlsplit(root).query))
    if not isinstance(files, fs.S3FileSystem) or not options.keys() <= {"region", "scheme", "endpoint_override"}:
        return files, base
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:  # from_uri reads it, the class does not
        options.setdefault("endpoint_override", endpoint)
    options["region"] = files.region
    patience = fs.AwsStandardS3RetryStrategy(max_attempts=TRIES)
    return fs.S3FileSystem(**options, retry_strategy=patience, allow_delayed_open=True), base

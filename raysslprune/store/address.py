"""Open the address of a root with pyarrow: a folder or an object store."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

SCHEMES = ("file", "s3", "gs", "gcs", "mock")
"""Of addresses; mock is a root in memory, for tests. Each of pyarrow's others fails in its own way."""

TRIES = 6
"""Of a call to S3. They bridge about 15 s without a server, and give up within a minute where nothing ever answers;
pyarrow's own take 100 s for that."""

NO_SECRETS = (
    "--root may not hold credentials, since it is printed and logged: put them into AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY for s3://, or a file that GOOGLE_APPLICATION_CREDENTIALS names for gs://"
)


def has_secrets(root: str) -> bool:
    """Whether an address holds a user's name with a password, or an option that is a key."""
    scheme, _, rest = root.partition("://")
    place = re.split("[/?#]", rest)[0]  # an AWS key may hold a slash, which would end it too early
    allowed = "[^:@]*" if scheme.lower() == "s3" else "([^:@]*@)?[^:@]*(:[0-9]*)?"
    options = rest.partition("?")[2]
    return not re.fullmatch(allowed, place) or bool(re.search("@|%40|(key|secret|token|password)[^&]*=", options, re.I))


def from_uri(root: str) -> tuple[fs.FileSystem, str]:
    """What pyarrow makes of an address; S3 with TRIES, which no address can say."""
    files, base = fs.FileSystem.from_uri(root)  # refuses unknown options, and finds out the bucket's region
    options = dict(parse_qsl(urlsplit(root).query))
    if not isinstance(files, fs.S3FileSystem) or not options.keys() <= {"region", "scheme", "endpoint_override"}:
        return files, base
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:  # which from_uri heeds, and the class does not
        options.setdefault("endpoint_override", endpoint)
    options["region"] = files.region
    patience = fs.AwsStandardS3RetryStrategy(max_attempts=TRIES)
    return fs.S3FileSystem(**options, retry_strategy=patience), base

"""Object storage: the only package that imports boto3."""

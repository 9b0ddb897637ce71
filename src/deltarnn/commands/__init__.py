"""Commands on anybody's networks: `deltarnn tune` and `deltarnn distill`."""

"""From a request to the best items: request checks, indexes and retrievers."""

# Default number of candidates of two stages; here, so that the flags of the command line need no torch.
CANDIDATES = 200

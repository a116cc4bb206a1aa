"""From a request to the best items: request checks, indexes and retrievers."""

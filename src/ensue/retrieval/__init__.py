"""From a request to the best items: the index, and the one way that all requests take."""

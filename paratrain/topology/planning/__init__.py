"""From a machine to a plan: the search for trees, trees on shards and over nodes, transports, comparisons."""

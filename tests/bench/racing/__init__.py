"""Parts of the race: the machine, the proxies with their configurations, the kinds of load."""

"""The methods: each module has a Config and method(config) -> Method."""

"""The methods: one file each. A file's function of the same name builds it."""

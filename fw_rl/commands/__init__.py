"""What the command line does; the one place in the package that knows environments and agents alike."""

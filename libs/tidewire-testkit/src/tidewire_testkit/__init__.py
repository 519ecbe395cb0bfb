"""Contract suites, builders and pollers for the tests of Tidewire."""

"""The science: pure functions over labelled arrays, no clock, no file, no environment."""

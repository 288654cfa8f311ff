"""Benchmarks behind `twin bench`, one module each; every figure of the docs comes from one of them."""

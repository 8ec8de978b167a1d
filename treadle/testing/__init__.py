"""What tests are made of: the op table, gradient checks, layer conformance, tolerances."""
